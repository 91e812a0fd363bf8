"""Sends webhooks from a few threads of an API process. One of them at a time looks for the next one that is due."""

import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import redis
from standardwebhooks import Webhook

from app.api.json_response import JSON, write_json
from app.api.metrics.process import count_webhook
from app.api.schemas.job import JobSchema, JobView
from app.api.webhooks.post import ForbiddenAddress, NoResponse, PostResponse, look_up, post
from app.api.webhooks.queue import Delivery, WebhookQueue
from app.api.webhooks.receivers import SENDERS, Receivers
from app.jobs.job import Job

LOOK_SECONDS = 0.5
ATTEMPT_SECONDS = 15.0
RETRY_SECONDS = (5, 30, 120, 600, 1800, 7200, 14_400, 28_800)  # after each failed attempt; 15 hours in all
MAX_RETRY_AFTER_SECONDS = 28_800.0  # the longest pause that a receiver may ask for
GIVE_UP_SECONDS = 86_400.0  # after the end of the job, whatever was tried
SETTLE_AGAIN_SECONDS = 0.5
_GONE = 410  # the receiver wants no more webhooks (Standard Webhooks)
_JOB_SCHEMA = JobSchema()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    """A failed attempt.

    has_responded: None: the attempt was not made, because its address is busy.
    retry_after_seconds: the pause that the receiver asks for.
    """

    reason: str
    is_final: bool = False
    has_responded: bool | None = True
    retry_after_seconds: float = 0.0


class WebhookSender:
    """The senders of one API process. Each webhook arrives at least once, always with the same `webhook-id`."""

    def __init__(self, due: WebhookQueue, secret: str, *, allow_private: bool) -> None:
        self._due = due
        self._signer = Webhook(secret)
        self._allow_private = allow_private
        self._receivers = Receivers()
        self._looking = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the threads. Call it once in a process, after any fork."""
        for _ in range(SENDERS):
            threading.Thread(target=self._run, name="webhook-sender", daemon=True).start()

    def stop(self) -> None:
        """Take no more webhooks. Does not wait for those that are being sent."""
        self._stopping.set()
        with self._looking:
            pass  # the one that looks has seen it

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._looking:
                delivery = None if self._stopping.is_set() else self._next()
            if delivery is not None:
                try:
                    self._send(delivery)
                except Exception:
                    logger.exception("sending the webhook of job %s failed; it is sent again", delivery.job.id)

    def _next(self) -> Delivery | None:
        """Take a webhook that can be sent now. Return None if the first one due has to wait, or after a pause if none
        is due."""
        try:
            for delivery in self._due.take(1):
                pause = self._receivers.enter(delivery.url, delivery.job.owner)
                if not pause:
                    return delivery
                self._retry(delivery, pause, delivery.failures, "its receiver does not respond")
                return None
        except redis.RedisError as error:
            logger.debug("no webhooks: %s", type(error).__name__)
        self._stopping.wait(LOOK_SECONDS)
        return None

    def _send(self, delivery: Delivery) -> None:
        deadline = delivery.lease_end - 2 * ATTEMPT_SECONDS
        failure: _Failure | None = None
        try:
            failure = self._attempt(delivery, deadline)
        finally:
            has_responded = True if failure is None else failure.has_responded
            self._receivers.leave(delivery.url, delivery.job.owner, has_responded=has_responded)
        while time.monotonic() < deadline:  # after it the lease ends, and the webhook is sent again
            try:
                self._settle(delivery, failure)
            except redis.RedisError:
                time.sleep(SETTLE_AGAIN_SECONDS)
            else:
                return

    def _attempt(self, delivery: Delivery, latest: float) -> _Failure | None:
        body, webhook_id = payload(delivery.job), f"msg_{delivery.job.id}"
        now = datetime.now(UTC)
        headers = {
            "Content-Type": JSON,
            "User-Agent": "llm-api",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(webhook_id, now, body),
        }
        try:
            response = self._post(delivery.url, headers, body.encode(), latest)
        except ForbiddenAddress:
            return _Failure("its address is not public (webhooks.allow_private)", is_final=True)
        except NoResponse as error:
            return _Failure(str(error), has_responded=False)
        if isinstance(response, float):
            return _Failure("its address is busy", has_responded=None, retry_after_seconds=response)
        if 200 <= response.status < 300:
            return None
        pause = min(response.retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        return _Failure(f"HTTP {response.status}", is_final=response.status == _GONE, retry_after_seconds=pause)

    def _post(self, url: str, headers: Mapping[str, str], body: bytes, latest: float) -> PostResponse | float:
        """Return the response, or the seconds to wait until its address is free.

        latest: on the monotonic clock; after it nothing is sent, however long the look-up of the name took.
        """
        addresses = look_up(url, allow_private=self._allow_private)
        hosts = [str(address[0]) for _, address in addresses]
        if time.monotonic() > latest:
            raise NoResponse("the look-up of its name took too long")
        if pause := self._receivers.enter_addresses(hosts):
            return pause
        try:
            return post(url, addresses, headers, body, seconds=ATTEMPT_SECONDS)
        finally:
            self._receivers.leave_addresses(hosts)

    def _settle(self, delivery: Delivery, failure: _Failure | None) -> None:
        if failure is None:
            self._due.sent(delivery)
            count_webhook("sent")
        elif failure.has_responded is None:
            self._retry(delivery, failure.retry_after_seconds, delivery.failures, failure.reason)
        elif failure.is_final or delivery.failures >= len(RETRY_SECONDS):
            self._give_up(delivery, delivery.failures + 1, failure.reason)
        else:
            pause = RETRY_SECONDS[delivery.failures] * random.uniform(0.8, 1.2)
            self._retry(delivery, max(pause, failure.retry_after_seconds), delivery.failures + 1, failure.reason)
            count_webhook("failed")

    def _retry(self, delivery: Delivery, seconds: float, failures: int, reason: str) -> None:
        if time.time() + seconds > (delivery.job.completed_at or 0.0) + GIVE_UP_SECONDS:
            self._give_up(delivery, failures, reason)
        else:
            logger.info("the webhook of job %s is sent again in %d s: %s", delivery.job.id, seconds, reason)
            self._due.retry(delivery, seconds, failures, reason)

    def _give_up(self, delivery: Delivery, tries: int, reason: str) -> None:
        host = urlsplit(delivery.url).hostname
        logger.warning("the webhook of job %s to %s is given up: %s", delivery.job.id, host, reason)
        self._due.give_up(delivery, tries, reason)
        count_webhook("given_up")


def payload(job: Job) -> str:
    """Return the body, which is the same for each attempt."""
    shown = _JOB_SCHEMA.dump(JobView(job, None, None))
    return write_json({"type": f"job.{job.status}", "timestamp": shown["completed_at"], "data": shown})
