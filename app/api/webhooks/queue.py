"""The queue of webhooks in Redis: a sender takes one under a lease and settles it under a token."""

import json
import time
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.job import Job
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient, script

LEASE_SECONDS = 120  # for the name look-up and one attempt; after it another sender takes a dead sender's webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook that this process has taken. failures: failed attempts. lease_end: on the monotonic clock."""

    job: Job
    url: str
    token: int
    failures: int
    lease_end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWebhook:
    """A webhook that has not arrived yet. failures: failed attempts. due_at: of the next one, Unix seconds."""

    url: str
    failures: int
    due_at: float


def read_pending(client: RedisClient, job: Job) -> PendingWebhook | None:
    """Return the webhook of an ended job that is still to be sent; None: there is none, or it is settled."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hmget(keys.webhook(job.id), ["webhook", "webhook_failures"])
        pipe.zscore(keys.webhooks(job.model), job.id)
        (webhook, failures), due_at = pipe.execute()
    if webhook is None or due_at is None:
        return None
    return PendingWebhook(url=json.loads(webhook)["url"], failures=int(failures or 0), due_at=float(due_at))


class WebhookQueue:
    """The webhooks of one model. Errors of Redis are raised as they are."""

    def __init__(self, client: RedisClient, model: str) -> None:
        self._due = keys.webhooks(model)
        self._take = script(client, "take_webhooks")
        self._settle = script(client, "settle_webhook")

    def take(self, most: int) -> list[Delivery]:
        """Take webhooks that are due, the longest due first. No other sender gets them for `LEASE_SECONDS`."""
        lease_end = time.monotonic() + LEASE_SECONDS
        fields = ",".join(RECORD_FIELDS)
        taken = self._take(keys=[self._due], args=[most, LEASE_SECONDS, keys.webhook(""), fields])
        deliveries = []
        for _, token, webhook, failures, values in taken:
            job = job_from_record(values)
            assert job is not None, "take_webhooks.lua returns records that exist"
            url = json.loads(webhook)["url"]
            deliveries.append(Delivery(job=job, url=url, token=int(token), failures=int(failures), lease_end=lease_end))
        return deliveries

    def remove(self, delivery: Delivery) -> None:
        """Remove a webhook that has arrived, or is given up."""
        self._settled(delivery, "", delivery.failures)

    def retry(self, delivery: Delivery, seconds: float, failures: int) -> None:
        """Make a webhook due again after `seconds`."""
        self._settled(delivery, f"{seconds:.3f}", failures)

    def _settled(self, delivery: Delivery, seconds: str, failures: int) -> None:
        job_id = delivery.job.id
        self._settle(keys=[self._due, keys.webhook(job_id)], args=[job_id, delivery.token, seconds, failures])
