"""A worker without a model, for tests of routes: it claims jobs as a real one does and plays the test's script."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis

from app.jobs import keys
from app.jobs.events import Delta, End
from app.jobs.job import FinishReason, JobError, Metrics, Output, Status, TokenLogprob, Usage
from app.jobs.output_writer import OutputWrite, OutputWriter
from app.jobs.record import outcome_fields
from app.jobs.redis_client import connect
from app.jobs.store import Claim, JobStore
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce
from tests.waiting import scaled

TTL_SECONDS = 60


@dataclass
class Turn:
    """One job that the worker has claimed."""

    claim: Claim
    worker: "ScriptedWorker"
    _texts: list[str] = field(default_factory=list)
    _logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def request(self) -> Any:
        return self.claim.request

    def delta(self, text: str, logprob: TokenLogprob | None = None) -> None:
        before = len(self._texts)
        self._texts.append(text)
        logprobs = () if logprob is None else (logprob,)
        self._logprobs += logprobs
        self._publish(delta=Delta(text, (before,), logprobs), before=before, is_followed=True)

    def succeed(self, *, embeddings: list[list[float]] | None = None, reason: FinishReason = FinishReason.STOP) -> None:
        output = Output(
            text="".join(self._texts),
            finish_reason=reason,
            logprobs=self._logprobs or None,
            embeddings=embeddings,
        )
        self._end(Status.SUCCEEDED, output, error=None)

    def fail(self, code: str, message: str, errors: dict[str, list[str]] | None = None) -> None:
        self._end(Status.FAILED, None, JobError(code=code, message=message, errors=errors or {}))

    def wait_for_cancel(self, seconds: float = 10.0) -> None:
        """Wait until the job's record requests its cancellation; then end the job as canceled."""
        deadline = time.monotonic() + scaled(seconds)
        while self.worker.redis.hget(keys.job(self.claim.job_id), "cancel") != "1":
            assert time.monotonic() < deadline, "the job was not canceled in time"
            time.sleep(0.01)
        self._end(Status.CANCELED, Output(text="".join(self._texts), finish_reason=FinishReason.CANCELED), None)

    def _end(self, status: Status, output: Output | None, error: JobError | None) -> None:
        usage = Usage(prompt_tokens=3, completion_tokens=len(self._texts), cached_tokens=2)
        metrics = Metrics(queue_seconds=self.claim.queue_seconds)
        fields = outcome_fields(status, output=output, usage=usage, metrics=metrics, error=error)
        end = End(status, None if output is None else output.finish_reason, usage, error)
        self._publish(end=end, end_fields=[part for pair in fields.items() for part in pair])

    def _publish(self, **output: Any) -> None:
        self.worker.writer.write([OutputWrite(job_id=self.claim.job_id, token=self.claim.token, **output)])


Play = Callable[[Turn], None]


def play_of(*steps: str | threading.Event | Play) -> Play:
    """Make a play of pieces of text to publish, events to wait for and functions to call, in this order."""

    def play(turn: Turn) -> None:
        for step in steps:
            if isinstance(step, str):
                turn.delta(step)
            elif isinstance(step, threading.Event):
                assert step.wait(scaled(10))
            else:
                step(turn)

    return play


class ScriptedWorker:
    """Claims the first job for each doorbell and runs `play` on it, in a thread of its own."""

    def __init__(self, redis_url: str, model: str) -> None:
        self.model = model
        self.name = "scripted"
        self.play = play_of("Hello", " world", Turn.succeed)
        self.turns: list[Turn] = []
        self.redis = connect(redis_url)
        self.writer = OutputWriter(self.redis, model=model, ttl_seconds=TTL_SECONDS)
        self._call = f"called off:{id(self)}"  # a second list: an entry in it ends the wait at once
        self._broker = redis.Redis.from_url(redis_url, decode_responses=True)
        self.store = JobStore(self.redis, model=model, ttl_seconds=TTL_SECONDS, max_queued=1000)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Claim no more jobs, and play the claimed ones to their end."""
        self._stopping.set()
        self._broker.lpush(self._call, "")
        self._thread.join(scaled(20))
        self._broker.delete(self._call)

    def announce(self, state: WorkerState = WorkerState.READY, **more: Any) -> None:
        info = WorkerInfo(id=self.name, model=self.model, family="test", state=state, slots=4, **more)
        announce(self.redis, info)

    def _run(self) -> None:
        threads: list[threading.Thread] = []
        while not self._stopping.is_set():
            message = self._broker.brpop([keys.doorbells(self.model), self._call], timeout=1)
            claim = self.store.claim(self.name) if message and message[0] != self._call else None
            if claim is not None:
                self.turns.append(turn := Turn(claim, self))
                threads.append(threading.Thread(target=self.play, args=[turn], daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join(scaled(15))


@contextlib.contextmanager
def working(redis_url: str, model: str) -> Iterator[ScriptedWorker]:
    """Run a ready worker until the end of the block."""
    worker = ScriptedWorker(redis_url, model)
    worker.announce()
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
