"""The queue of webhooks in Redis: a sender takes one under a lease and settles it under a token."""

import json
import time
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.job import Job, WebhookState
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
        taken = self._take(keys=[self._due], args=[most, LEASE_SECONDS, keys.webhook(""), fields, keys.job("")])
        deliveries = []
        for _, token, webhook, failures, values in taken:
            job = job_from_record(values)
            assert job is not None, "take_webhooks.lua returns records that exist"
            url = json.loads(webhook)["url"]
            deliveries.append(Delivery(job=job, url=url, token=int(token), failures=int(failures), lease_end=lease_end))
        return deliveries

    def sent(self, delivery: Delivery) -> None:
        """Remove a webhook that has arrived."""
        self._settled(delivery, WebhookState.SENT, delivery.failures + 1)

    def give_up(self, delivery: Delivery, tries: int, error: str) -> None:
        """Remove a webhook that is not sent any more."""
        self._settled(delivery, WebhookState.GIVEN_UP, tries, error)

    def retry(self, delivery: Delivery, seconds: float, failures: int, error: str) -> None:
        """Make a webhook due again after `seconds`."""
        self._settled(delivery, WebhookState.WAITING, failures, error, f"{seconds:.3f}")

    def _settled(self, delivery: Delivery, state: WebhookState, tries: int, error: str = "", seconds: str = "") -> None:
        """Settle a webhook, and note in the record of its job what has become of it."""
        job_id = delivery.job.id
        self._settle(
            keys=[self._due, keys.webhook(job_id), keys.job(job_id)],
            args=[job_id, delivery.token, state.value, tries, error, seconds],
        )
