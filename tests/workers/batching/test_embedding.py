"""The embedding loop: waiting jobs join one call, and each gets its own vectors."""

import threading
from collections.abc import Sequence

from app.errors import PromptTooLong
from app.jobs.job import JobRequest, Kind, Text
from tests.waiting import scaled, until
from tests.workers.batching.loop_host import Host
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.embedding import EmbeddingLoop
from workers.engines.runner import Outcome, Report, RunnerJob


class Embeds(ScriptedEngine):
    """A text's vector is its length; a text "long" is rejected. The first call waits until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.go = threading.Event()

    def embed(self, texts: Sequence[Text]) -> list[tuple[list[float], int]]:
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


def submit(loop: EmbeddingLoop, *texts: str) -> None:
    loop.submit(RunnerJob(texts[0], JobRequest(kind=Kind.EMBED, texts=texts)))


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
