"""Embeds the texts of waiting jobs, some at a time: tenants take turns, and a job may end between two calls.

A text is computed as a whole. So a request of hundreds of long texts delays another one's by one call, and not by all
of its texts.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

from app.errors import JobTimeout
from app.jobs.job import AdapterUse, FinishReason, Status, Text
from app.niceness import set_niceness
from workers.engines.base import Engine
from workers.engines.runner import Outcome, Report, RunnerHost, RunnerJob, embedded, job_error

MAX_TEXTS_PER_CALL = 256
CALL_SECONDS = 0.3  # of a call, as far as the texts can be divided so
FIRST_CALL_CHARACTERS = 2000  # until it is known how long they take
CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True, eq=False)
class _Embedding:
    """A job, and what has been computed for its first texts."""

    job: RunnerJob
    results: list[tuple[list[float], int]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return len(self.results) == len(self.job.request.texts)

    @property
    def adapters(self) -> tuple[AdapterUse, ...]:
        return self.job.request.adapters

    @property
    def is_late(self) -> bool:
        began = self.job.submitted_at
        return began is not None and time.monotonic() - began > self.job.timeout_seconds


Call = dict[_Embedding, list[Text]]
"""The next texts of some jobs, all with the same adapters."""


class EmbeddingLoop:
    """One thread that embeds. Each job's outcome is reported once, from that thread; that of a canceled job is not.

    nice: niceness of its thread, if the engine computes on CPUs.
    """

    def __init__(self, engine: Engine, host: RunnerHost, *, nice: int = 0) -> None:
        self._engine = engine
        self._host = host
        self._nice = nice
        self._waiting: OrderedDict[str, deque[_Embedding]] = OrderedDict()  # by tenant, whose turn is next first
        self._changed = threading.Condition()
        self._characters_per_second = FIRST_CALL_CHARACTERS / CALL_SECONDS
        self._call_began: float | None = None

    @property
    def seconds_in_turn(self) -> float:
        """As `Runner.seconds_in_turn`, of the call that runs now."""
        began = self._call_began
        return 0.0 if began is None else time.monotonic() - began

    def start(self) -> None:
        threading.Thread(target=self._run, name="embedding-loop", daemon=True).start()

    def submit(self, job: RunnerJob) -> None:
        with self._changed:
            self._waiting.setdefault(job.tenant, deque()).append(_Embedding(job))
            self._changed.notify()

    def _run(self) -> None:
        if self._engine.computes_on_cpu:
            set_niceness(self._nice)
        while True:
            self._embed(self._next_call())

    def _next_call(self) -> Call:
        """Wait for texts, and take some: one of each tenant in turn, until they are enough for a call."""
        with self._changed:
            while not self._drop_ended():
                self._changed.wait()
            call: Call = {}
            characters, tenants = self._characters_per_second * CALL_SECONDS, deque(self._waiting)
            texts = 0
            taken: Counter[_Embedding] = Counter()
            while tenants and texts < MAX_TEXTS_PER_CALL:
                tenant = tenants.popleft()
                mates = (one for one in self._waiting[tenant] if not call or one.adapters == next(iter(call)).adapters)
                embedding = next((one for one in mates if _left(one, taken[one])), None)
                if embedding is None:
                    continue
                text = embedding.job.request.texts[len(embedding.results) + taken[embedding]]
                characters -= _characters(text)
                if call and characters < 0:
                    break
                call.setdefault(embedding, []).append(text)
                taken[embedding] += 1
                texts += 1
                tenants.append(tenant)
            self._waiting.move_to_end(next(iter(self._waiting)))
            return call

    def _drop_ended(self) -> bool:
        """Drop the jobs that were canceled or ran out of time. Return whether others wait."""
        for tenant, embeddings in list(self._waiting.items()):
            for one in [one for one in embeddings if one.job.cancel_requested or one.is_late]:
                embeddings.remove(one)
                if not one.job.cancel_requested:
                    self._host.report([Report(one.job, None, _timed_out())])
            if not embeddings:
                del self._waiting[tenant]
        return bool(self._waiting)

    def _embed(self, call: Call) -> None:
        began = self._call_began = time.monotonic()
        texts = [text for some in call.values() for text in some]
        one = next(iter(call))
        first = len(one.results) if len(call) == 1 else 0
        chosen = {"adapters": one.adapters} if one.adapters else {}
        try:
            results = iter(self._engine.embed(texts, first=first, **chosen))
        except Exception as error:
            if len(call) == 1:
                (embedding,) = call
                self._remove(embedding)
                self._host.fail(embedding.job, error)
            else:  # a fault of one request must not fail the others
                for embedding, some in call.items():
                    self._embed({embedding: some})
            return
        finally:
            self._call_began = None
        self._learn(sum(map(_characters, texts)), time.monotonic() - began)
        for embedding, some in call.items():
            embedding.results += [next(results) for _ in some]
            if embedding.is_complete:
                self._remove(embedding)
                self._host.report([Report(embedding.job, None, embedded(embedding.results))])

    def _learn(self, characters: int, seconds: float) -> None:
        measured = characters / max(seconds, 1e-6)
        self._characters_per_second = max(1.0, (self._characters_per_second + measured) / 2)

    def _remove(self, embedding: _Embedding) -> None:
        with self._changed:
            embeddings = self._waiting[embedding.job.tenant]
            embeddings.remove(embedding)
            if not embeddings:
                del self._waiting[embedding.job.tenant]


def _left(embedding: _Embedding, taken: int) -> bool:
    return len(embedding.results) + taken < len(embedding.job.request.texts)


def _characters(text: Text) -> int:
    return max(1, len(text) if isinstance(text, str) else len(text) * CHARACTERS_PER_TOKEN)


def _timed_out() -> Outcome:
    error = JobTimeout("the job ran longer than its timeout; send fewer texts at once or raise `timeout`")
    return Outcome(status=Status.FAILED, finish_reason=FinishReason.TIMEOUT, error=job_error(error))
