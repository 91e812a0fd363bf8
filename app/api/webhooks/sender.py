"""Sends webhooks: one thread of an API process looks what is due, a few others send."""

import json
import logging
import queue
import random
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import redis
from standardwebhooks import Webhook

from app.api.schemas.job import JobSchema, JobView
from app.api.webhooks.addresses import ForbiddenAddress
from app.api.webhooks.post import NoAnswer, PostAnswer, post
from app.api.webhooks.queue import LEASE_SECONDS, Delivery, WebhookQueue
from app.api.webhooks.receivers import Receivers
from app.jobs.job import Job

LOOK_SECONDS = 0.5
SENDERS = 8  # per process
ATTEMPT_SECONDS = 15.0
RETRY_SECONDS = (5, 30, 120, 600, 1800, 7200, 14_400, 28_800)  # after each failed attempt; 15 hours in all
MOST_ASKED_SECONDS = 28_800.0  # that a receiver may ask to wait
GIVE_UP_SECONDS = 86_400.0  # after the job's end, whatever was tried
SETTLE_AGAIN_SECONDS = 0.5
_GONE = 410  # the receiver wants no more of it (Standard Webhooks)
_JOB_SCHEMA = JobSchema()

logger = logging.getLogger(__name__)


class WebhookSender:
    """Of one API process. Each webhook arrives at least once, always with the same `webhook-id`."""

    def __init__(self, due: WebhookQueue, secret: str, *, allow_private: bool) -> None:
        self._due = due
        self._signer = Webhook(secret)
        self._allow_private = allow_private
        self._receivers = Receivers()
        self._inbox: queue.SimpleQueue[tuple[Delivery, float]] = queue.SimpleQueue()
        self._free = threading.Semaphore(SENDERS)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Call it once in a process, after any fork."""
        threading.Thread(target=self._look_forever, name="webhooks", daemon=True).start()
        for _ in range(SENDERS):
            threading.Thread(target=self._send_forever, name="webhook-sender", daemon=True).start()

    def stop(self) -> None:
        """Take no more; what is being sent is not waited for."""
        self._stopping.set()

    def look(self) -> int:
        """Hand out what is due, as far as senders are free. Returns how many there were."""
        room = 0
        while room < SENDERS and self._free.acquire(blocking=False):
            room += 1
        try:
            latest = time.monotonic() + LEASE_SECONDS - 2 * ATTEMPT_SECONDS
            taken = self._due.take(room) if room else []
            for delivery in taken:
                pause = self._receivers.enter(delivery.url)
                if pause:
                    self._later(delivery, pause, delivery.failures, "its receiver does not answer")
                else:
                    self._inbox.put((delivery, latest))
                    room -= 1
            return len(taken)
        finally:
            for _ in range(room):
                self._free.release()

    def _look_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                found = self.look()
            except redis.RedisError as error:
                logger.debug("no webhooks: %s", type(error).__name__)
                found = 0
            if not found:
                self._stopping.wait(LOOK_SECONDS)

    def _send_forever(self) -> None:
        while True:
            delivery, latest = self._inbox.get()
            try:
                self._send(delivery, latest)
            except Exception:
                logger.exception("sending the webhook of job %s failed; it is sent again", delivery.job.id)
            finally:
                self._free.release()

    def _send(self, delivery: Delivery, latest: float) -> None:
        answer: PostAnswer | None = None
        refusal = failure = ""
        try:
            answer = self._post(delivery, latest)
        except ForbiddenAddress:
            refusal = "its address is not public (webhooks.allow_private)"
        except NoAnswer as error:
            failure = str(error)
        finally:
            self._receivers.leave(delivery.url, answered=not failure)
        if answer is not None and not 200 <= answer.status < 300:
            failure = f"HTTP {answer.status}"
            refusal = failure if answer.status == _GONE else ""
        while time.monotonic() < latest:  # then the lease runs out, and it is sent again
            try:
                self._settle(delivery, refusal, failure, answer)
            except redis.RedisError:
                time.sleep(SETTLE_AGAIN_SECONDS)
            else:
                return

    def _settle(self, delivery: Delivery, refusal: str, failure: str, answer: PostAnswer | None) -> None:
        if refusal:
            self._give_up(delivery, refusal)
        elif not failure:
            self._due.over(delivery)
        elif delivery.failures >= len(RETRY_SECONDS):
            self._give_up(delivery, failure)
        else:
            pause = RETRY_SECONDS[delivery.failures] * random.uniform(0.8, 1.2)
            asked = (answer and answer.after_seconds) or 0
            self._later(delivery, max(pause, min(asked, MOST_ASKED_SECONDS)), delivery.failures + 1, failure)

    def _later(self, delivery: Delivery, seconds: float, failures: int, reason: str) -> None:
        if time.time() + seconds > (delivery.job.completed_at or 0.0) + GIVE_UP_SECONDS:
            self._give_up(delivery, reason)
        else:
            logger.info("the webhook of job %s comes again in %d s: %s", delivery.job.id, seconds, reason)
            self._due.again(delivery, seconds, failures)

    def _give_up(self, delivery: Delivery, reason: str) -> None:
        host = urlsplit(delivery.url).hostname
        logger.warning("the webhook of job %s to %s is given up: %s", delivery.job.id, host, reason)
        self._due.over(delivery)

    def _post(self, delivery: Delivery, latest: float) -> PostAnswer:
        body, webhook_id = payload(delivery.job), f"msg_{delivery.job.id}"
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "llm-api",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(webhook_id, now, body),
        }
        return post(
            delivery.url,
            headers,
            body.encode(),
            seconds=ATTEMPT_SECONDS,
            latest=latest,
            allow_private=self._allow_private,
        )


def payload(job: Job) -> str:
    """The same for each attempt."""
    shown = _JOB_SCHEMA.dump(JobView(job, None, None))
    told = {"type": f"job.{job.status}", "timestamp": shown["completed_at"], "data": shown}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
