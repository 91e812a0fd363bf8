"""Keeps this worker's claims alive, and hears what is asked of its jobs.

One thread renews all leases in one pipeline every third of a lease and announces the worker; another listens on the
control channel, so that a cancellation takes effect at the next step. What the channel loses, the next renewal tells.
"""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

import redis

from app.jobs import keys
from app.jobs.redis_client import LoadedScript, RedisClient
from app.jobs.store import LEASE_SECONDS, Claim
from app.jobs.workers import WorkerInfo, announce

RENEW_SECONDS = LEASE_SECONDS / 3
CONTROL_POLL_SECONDS = 0.5
RECONNECT_SECONDS = 0.5

logger = logging.getLogger(__name__)


class JobControl(Protocol):
    """What the leases tell the rest of the worker."""

    def cancel(self, job_id: str) -> None: ...
    def follow(self, job_id: str) -> None: ...


class Leases:
    """The claims of this worker's running jobs. `describe` says what the worker announces of itself."""

    def __init__(
        self, client: RedisClient, *, model: str, control: JobControl, describe: Callable[[], WorkerInfo]
    ) -> None:
        self._redis = client
        self._model = model
        self._control = control
        self._describe = describe
        self._renew = LoadedScript(client, "renew")
        self._claims: dict[str, Claim] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for target, name in ((self._renew_forever, "leases"), (self._listen_forever, "control")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Renew and announce no more."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def add(self, claim: Claim) -> None:
        self._claims[claim.job_id] = claim

    def remove(self, job_id: str) -> None:
        self._claims.pop(job_id, None)

    def renew_all(self) -> None:
        """Renew every lease; jobs lost to another worker are canceled here, other wishes are passed on."""
        claims = self.claims
        if claims:
            self._renew_claims(claims)
        announce(self._redis, self._describe())

    @property
    def claims(self) -> list[Claim]:
        return list(self._claims.values())

    def _renew_claims(self, claims: list[Claim]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for claim in claims:
                job_keys = [keys.job(claim.job_id), keys.running(self._model)]
                self._renew.call(pipe, keys=job_keys, args=[claim.job_id, claim.token, LEASE_SECONDS])
            answers = self._renew.execute(pipe)
        for claim, (verdict, *wishes) in zip(claims, answers, strict=True):
            if self._claims.get(claim.job_id) is not claim:
                continue  # it has ended meanwhile, and may have been claimed again
            if verdict == "lost" or wishes[0] == "1":
                self._control.cancel(claim.job_id)
            elif wishes[1] == "1":
                self._control.follow(claim.job_id)

    def _renew_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self.renew_all()
            except redis.RedisError as error:
                logger.warning("leases not renewed: no answer from Redis (%s)", type(error).__name__)
                self._stopping.wait(RECONNECT_SECONDS)  # they run out meanwhile
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
            channel.subscribe(keys.CONTROL_CHANNEL)
            while not self._stopping.is_set():
                message = channel.get_message(ignore_subscribe_messages=True, timeout=CONTROL_POLL_SECONDS)
                if message is not None:
                    self._obey(message["data"])
        finally:
            channel.close()

    def _obey(self, wish: str) -> None:
        verb, _, job_id = wish.partition(":")
        if job_id in self._claims:
            (self._control.cancel if verb == "cancel" else self._control.follow)(job_id)
