"""Webhooks that wait to be sent, in Redis: taken under a lease, settled under a token."""

import json
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.job import Job
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient, script

LEASE_SECONDS = 120  # for the look-up of a name and one attempt; a sender that dies holds its webhooks for so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook that this process is to send. failures: attempts that have failed."""

    job: Job
    url: str
    token: int
    failures: int


class WebhookQueue:
    """Everything raised by Redis passes through."""

    def __init__(self, client: RedisClient, model: str) -> None:
        self._due = keys.webhooks(model)
        self._take = script(client, "take_webhooks")
        self._settle = script(client, "settle_webhook")

    def take(self, most: int) -> list[Delivery]:
        """What is due, the longest due first; nobody else gets it for `LEASE_SECONDS`."""
        fields = ",".join(RECORD_FIELDS)
        taken = self._take(keys=[self._due], args=[most, LEASE_SECONDS, keys.webhook(""), fields])
        deliveries = []
        for _, token, webhook, failures, values in taken:
            job = job_from_record(values)
            assert job is not None, "take_webhooks.lua answers with records that are there"
            url = json.loads(webhook)["url"]
            deliveries.append(Delivery(job=job, url=url, token=int(token), failures=int(failures)))
        return deliveries

    def over(self, delivery: Delivery) -> None:
        """It has arrived, or is given up."""
        self._settled(delivery, "", delivery.failures)

    def again(self, delivery: Delivery, seconds: float, failures: int) -> None:
        """It is due again in so many seconds."""
        self._settled(delivery, f"{seconds:.3f}", failures)

    def _settled(self, delivery: Delivery, seconds: str, failures: int) -> None:
        job_id = delivery.job.id
        self._settle(keys=[self._due, keys.webhook(job_id)], args=[job_id, delivery.token, seconds, failures])
