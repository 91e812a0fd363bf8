"""Keeps this worker's claims alive, announces the worker, and applies requests to cancel a job, or to publish it at
every step because a client follows it.

One thread renews all leases in one pipeline every third of a lease and announces the worker; another listens on the
control channel, so that a cancellation takes effect at the next step. The next renewal makes up for a lost message.
"""

import logging
import threading
from typing import Protocol

import redis

from app.jobs import keys
from app.jobs.adapter_registry import CONTROL_VERB
from app.jobs.redis_client import LoadedScript, RedisClient
from app.jobs.store import LEASE_SECONDS
from workers.jobs.running_jobs import JobControl, RunningJob, RunningJobs

RENEW_SECONDS = LEASE_SECONDS / 3
CONTROL_POLL_SECONDS = 1.0
RECONNECT_SECONDS = 0.5

logger = logging.getLogger(__name__)


class LeaseHost(JobControl, Protocol):
    """The worker, as its leases see it."""

    def announce(self) -> None:
        """Write the worker's state. Raises `redis.RedisError`."""

    def sync_adapters(self) -> None:
        """Look soon which adapters are to be loaded and unloaded."""


class Leases:
    """The claims of this worker's running jobs."""

    def __init__(
        self, client: RedisClient, jobs: RunningJobs, worker: LeaseHost, *, model: str, worker_id: str
    ) -> None:
        self._redis = client
        self._jobs = jobs
        self._worker = worker
        self._model = model
        self._worker_id = worker_id
        self._renew = LoadedScript(client, "renew")
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for target, name in ((self._renew_forever, "leases"), (self._listen_forever, "control")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop both threads and wait for their end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def renew_all(self) -> None:
        """Renew every lease and announce the worker. Jobs lost to another worker are canceled here."""
        jobs = list(self._jobs)
        if jobs:
            self._renew_jobs(jobs)
        self._worker.announce()

    def _renew_jobs(self, jobs: list[RunningJob]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                job_keys = [keys.job(job.id), keys.running(self._model)]
                self._renew.add_to(pipe, keys=job_keys, args=[job.id, job.claim.token, LEASE_SECONDS])
            replies = self._renew.execute_pipeline(pipe)
        for job, (verdict, *flags) in zip(jobs, replies, strict=True):
            if job not in self._jobs:
                continue  # it has ended meanwhile
            if verdict == "lost" or flags[0] == "1":
                self._worker.cancel(job)
            elif flags[1] == "1":
                self._worker.follow(job)

    def _renew_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self.renew_all()
            except redis.RedisError as error:
                logger.warning("leases not renewed: no reply from Redis (%s)", type(error).__name__)
                self._stopping.wait(RECONNECT_SECONDS)  # a shorter pause: the leases expire meanwhile
            else:
                self._stopping.wait(RENEW_SECONDS)

    def _listen_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                logger.warning("control channel lost (%s); subscribing again", type(error).__name__)
                self._stopping.wait(RECONNECT_SECONDS)

    def _listen(self) -> None:
        channel = self._redis.pubsub()
        try:
            channel.subscribe(keys.CONTROL_CHANNEL, keys.worker_channel(self._worker_id))
            while not self._stopping.is_set():
                message = channel.get_message(ignore_subscribe_messages=True, timeout=CONTROL_POLL_SECONDS)
                if message is not None:
                    self._handle(message["data"])
        finally:
            channel.close()

    def _handle(self, message: str) -> None:
        verb, _, what = message.partition(":")
        if verb == CONTROL_VERB:
            if what == self._model:
                self._worker.sync_adapters()
            return
        job = self._jobs.get(what)
        if job is not None:
            (self._worker.cancel if verb == "cancel" else self._worker.follow)(job)
