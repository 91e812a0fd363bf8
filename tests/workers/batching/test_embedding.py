"""The embedding loop: waiting jobs join one call, and each gets its own vectors."""

import threading
import time
from collections.abc import Sequence

from app.errors import PromptTooLong
from app.jobs.job import JobRequest, Kind, Status, Text
from tests.waiting import scaled, until
from tests.workers.batching.loop_host import Host
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.embedding import FIRST_CALL_CHARACTERS, EmbeddingLoop
from workers.engines.runner import Outcome, Report, RunnerJob


class Embeds(ScriptedEngine):
    """A text's vector is its length; a text "long" is rejected. The first call waits until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.firsts: list[int] = []
        self.go = threading.Event()

    def embed(self, texts: Sequence[Text], *, first: int = 0) -> list[tuple[list[float], int]]:
        self.calls.append(list(texts))
        assert self.go.wait(scaled(5))
        if "long" in texts:
            raise PromptTooLong("too long")
        return [([float(len(text))], 1) for text in texts]


class Outcomes(Host):
    """The outcome of each job, by its texts."""

    def __init__(self) -> None:
        super().__init__(self._publish)
        self.ended: dict[tuple[Text, ...], Outcome | Exception] = {}

    def _publish(self, reports: Sequence[Report]) -> None:
        for job, _, outcome in reports:
            assert outcome is not None
            self.ended[job.request.texts] = outcome

    def fail(self, job: RunnerJob, error: Exception) -> None:
        self.ended[job.request.texts] = error

    def of(self, *texts: str) -> tuple[list[list[float]] | None, int]:
        until(lambda: texts in self.ended)
        outcome = self.ended[texts]
        assert isinstance(outcome, Outcome)
        return outcome.embeddings, outcome.usage.prompt_tokens


def submit(loop: EmbeddingLoop, *texts: str, tenant: str = "me", seconds: float = 600) -> RunnerJob:
    job = RunnerJob(texts[0], JobRequest(kind=Kind.EMBED, texts=texts), tenant=tenant, timeout_seconds=seconds)
    job.submitted_at = time.monotonic()
    loop.submit(job)
    return job


def test_jobs_that_wait_share_one_call_and_each_gets_its_own_vectors() -> None:
    engine, outcomes = Embeds(), Outcomes()
    loop = EmbeddingLoop(engine, outcomes)
    loop.start()
    submit(loop, "a")
    until(lambda: engine.calls)
    submit(loop, "bb", "ccc")
    submit(loop, "dddd")
    engine.go.set()
    assert outcomes.of("a") == ([[1.0]], 1)
    assert outcomes.of("bb", "ccc") == ([[2.0], [3.0]], 2)
    assert outcomes.of("dddd") == ([[4.0]], 1)
    assert engine.calls == [["a"], ["bb", "ccc", "dddd"]]


def test_a_rejected_request_does_not_fail_its_neighbours() -> None:
    engine, outcomes = Embeds(), Outcomes()
    loop = EmbeddingLoop(engine, outcomes)
    for text in ("a", "long", "bb"):
        submit(loop, text)
    engine.go.set()
    loop.start()
    assert (outcomes.of("a"), outcomes.of("bb")) == (([[1.0]], 1), ([[2.0]], 1))
    until(lambda: ("long",) in outcomes.ended)
    assert isinstance(outcomes.ended[("long",)], PromptTooLong)


class Paced(Embeds):
    """Each call waits for a permit."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)
        self.go.set()

    def embed(self, texts: Sequence[Text], *, first: int = 0) -> list[tuple[list[float], int]]:
        self.firsts.append(first)
        assert self.permits.acquire(timeout=scaled(5))
        return super().embed(texts, first=first)


LONG = "x" * FIRST_CALL_CHARACTERS


def test_tenants_take_turns_text_by_text() -> None:
    engine, outcomes = Paced(), Outcomes()
    loop = EmbeddingLoop(engine, outcomes)
    many = [f"{number}{LONG}" for number in range(20)]
    submit(loop, *many, tenant="one")
    submit(loop, LONG, tenant="two")
    loop.start()
    engine.permits.release(2)
    until(lambda: (LONG,) in outcomes.ended)
    assert (engine.calls[0], engine.calls[1][0]) == ([many[0]], LONG)
    engine.permits.release(100)
    assert outcomes.of(*many) == ([[float(len(text))] for text in many], len(many))


def test_errors_name_a_text_by_its_number_in_the_request() -> None:
    engine, outcomes = Paced(), Outcomes()
    loop = EmbeddingLoop(engine, outcomes)
    submit(loop, LONG, "bb", "long")
    engine.permits.release(100)
    loop.start()
    until(lambda: outcomes.ended)
    assert engine.firsts == [0, 1]


def test_a_canceled_job_and_one_whose_time_is_over_end_between_two_calls() -> None:
    engine, outcomes = Paced(), Outcomes()
    loop = EmbeddingLoop(engine, outcomes)
    canceled = submit(loop, *[f"a{LONG}"] * 9, tenant="one")
    submit(loop, *[f"b{LONG}"] * 9, tenant="two", seconds=0.2)
    loop.start()
    until(lambda: engine.firsts)
    canceled.cancel_requested = True
    time.sleep(0.3)
    engine.permits.release(100)
    until(lambda: outcomes.ended)
    submit(loop, "c", tenant="three")
    outcomes.of("c")
    (late,) = (outcome for texts, outcome in outcomes.ended.items() if texts != ("c",))
    assert isinstance(late, Outcome) and late.error is not None
    assert (late.status, late.error.code) == (Status.FAILED, "timeout")
    assert len(engine.calls) <= 3, "neither was computed to its end"


def test_short_texts_share_a_call_and_it_is_known_how_long_one_lasts() -> None:
    engine, outcomes = Paced(), Outcomes()
    loop = EmbeddingLoop(engine, outcomes)
    submit(loop, *map(str, range(100)))
    assert loop.seconds_in_turn == 0
    loop.start()
    until(lambda: loop.seconds_in_turn > 0)
    engine.permits.release(100)
    assert outcomes.of(*map(str, range(100)))[1] == 100
    assert len(engine.calls) == 1
    until(lambda: loop.seconds_in_turn == 0)
