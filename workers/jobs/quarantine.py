"""Jobs that were running when their worker died, and may have been the reason: each is tried alone, one at a time.

While one is on trial the others of this worker wait in their slots, and a key in Redis names it: should the worker die,
the reaper knows whom to blame. It has passed when it is `TRIAL_TOKENS` tokens beyond the place where its last worker
left it. A job with only one more death to its name before it fails gets no company at all, from its first token to its
last: whatever it does, it does to itself. Why not simply every job alone to its end: docs/decisions/0005.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import redis

from app.jobs import keys
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim

TRIAL_TOKENS = 16
COMPANY_LOSSES = 2  # as often, at most, may a job take company down with it
MARK_SECONDS = 3600  # beyond the job's own time, for the reaper to read


class Stage(Protocol):
    """Where trials happen: `workers.batching.loop.BatchLoop`."""

    def hold_others(self, sequence_id: str, *, tokens: int | None, on_passed: Callable[[], None]) -> None: ...
    def release_others(self) -> None: ...


class Quarantine:
    """The suspects of one worker.

    begin: begins a claimed job, any thread. spawn: runs something in another thread. others: how many jobs this worker
    holds beside its suspects. on_quiet: called when no suspect is left here.
    """

    def __init__(
        self,
        client: RedisClient,
        worker_id: str,
        *,
        max_attempts: int,
        begin: Callable[[str], None],
        spawn: Callable[[Callable[[], None]], object],
        others: Callable[[], int],
        on_quiet: Callable[[], None],
    ) -> None:
        self._redis = client
        self._mark = keys.trial(worker_id)
        self._max_attempts = max_attempts
        self._begin = begin
        self._spawn = spawn
        self._others = others
        self._on_quiet = on_quiet
        self._lock = threading.Lock()
        self._waiting: deque[Claim] = deque()
        self._current: Claim | None = None
        self._expected = 0
        self._ending = False
        self.stage: Stage | None = None

    @property
    def count(self) -> int:
        """Suspects here: on their way, waiting for their trial, or on it."""
        return self._expected + len(self._waiting) + (self._current is not None)

    def expect(self) -> None:
        """A suspect has been claimed and will be added: from now on nothing else is to be fetched."""
        with self._lock:
            self._expected += 1

    def add(self, claim: Claim) -> None:
        """An expected suspect is ready; its trial comes when it can."""
        with self._lock:
            self._expected -= 1
            self._waiting.append(claim)
        self.go_on()

    def go_on(self) -> None:
        """Begin the next trial if it can begin: call it whenever a job has ended."""
        with self._lock:
            if self._current is not None or not self._waiting:
                return
            if self._needs_solitude(self._waiting[0]) and self._others() > 0:
                return  # they end by themselves, and nothing is fetched meanwhile
            self._current = claim = self._waiting.popleft()
        self._spawn(lambda: self._start(claim))

    def ended(self, job_id: str) -> None:
        """A job has left this worker; where it was on trial, the trial is over."""
        with self._lock:
            self._waiting = deque(claim for claim in self._waiting if claim.job_id != job_id)
            is_current = self._current is not None and self._current.job_id == job_id
            ends_now = is_current and not self._ending
            self._ending = self._ending or ends_now
        if ends_now:
            self._spawn(self._finish)
        elif not is_current:
            self.go_on()

    def _start(self, claim: Claim) -> None:
        assert self.stage is not None
        seconds = int(claim.request.timeout_seconds) + MARK_SECONDS
        with contextlib.suppress(redis.RedisError):  # unmarked, its company would be suspected too: no more than that
            self._redis.set(self._mark, claim.job_id, ex=seconds)
        tokens = None if self._needs_solitude(claim) else TRIAL_TOKENS
        self.stage.hold_others(claim.job_id, tokens=tokens, on_passed=lambda: self.ended(claim.job_id))
        self._begin(claim.job_id)

    def _finish(self) -> None:
        assert self.stage is not None
        self.stage.release_others()
        with contextlib.suppress(redis.RedisError):
            self._redis.delete(self._mark)
        with self._lock:
            self._current, self._ending = None, False
        self.go_on()
        if self.count == 0:
            self._on_quiet()

    def _needs_solitude(self, claim: Claim) -> bool:
        return claim.losses >= min(COMPANY_LOSSES, self._max_attempts - 1)
