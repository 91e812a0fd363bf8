"""The embedding loop: requests that wait go into one call, and each gets what is its own."""

import threading
from collections.abc import Sequence

from app.errors import PromptTooLong
from app.jobs.job import Text
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.embedding import EmbeddingLoop

Outcome = tuple[list[list[float]], int, Exception | None]


class Embeds(ScriptedEngine):
    """A text's vector is its length; a text "long" is refused. The first call waits until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.go = threading.Event()

    def embed(self, texts: Sequence[Text]) -> list[tuple[list[float], int]]:
        self.calls.append(list(texts))
        assert self.go.wait(5)
        if "long" in texts:
            raise PromptTooLong("too long")
        return [([float(len(text))], 1) for text in texts]


def submit(loop: EmbeddingLoop, *texts: str) -> "tuple[threading.Event, list[Outcome]]":
    done, outcomes = threading.Event(), []

    def on_done(vectors: list[list[float]], tokens: int, error: Exception | None) -> None:
        outcomes.append((vectors, tokens, error))
        done.set()

    loop.submit(texts, on_done)
    return done, outcomes


def test_requests_that_wait_share_one_call_and_each_gets_its_own_vectors() -> None:
    engine = Embeds()
    loop = EmbeddingLoop(engine)
    loop.start()
    first = submit(loop, "a")
    while not engine.calls:
        pass
    waiting = [submit(loop, "bb", "ccc"), submit(loop, "dddd")]
    engine.go.set()
    for done, _ in (first, *waiting):
        assert done.wait(5)
    assert engine.calls == [["a"], ["bb", "ccc", "dddd"]]
    assert [outcomes for _, outcomes in waiting] == [[([[2.0], [3.0]], 2, None)], [([[4.0]], 1, None)]]


def test_one_requests_fault_is_not_its_neighbours() -> None:
    engine = Embeds()
    loop = EmbeddingLoop(engine)
    requests = [submit(loop, "a"), submit(loop, "long"), submit(loop, "bb")]
    engine.go.set()
    loop.start()
    for done, _ in requests:
        assert done.wait(5)
    good, bad, also_good = (outcomes for _, outcomes in requests)
    assert (good, also_good) == ([([[1.0]], 1, None)], [([[2.0]], 1, None)])
    assert isinstance(bad[0][2], PromptTooLong)
