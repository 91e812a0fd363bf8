"""A batch loop over a scripted engine. A module with another engine replaces `engine`."""

from collections.abc import Iterator

import pytest

from tests.workers.batching.loop_host import Collected, Host
from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.batching.loop import BatchLoop


@pytest.fixture
def collected() -> Collected:
    return Collected()


@pytest.fixture
def host(collected: Collected) -> Host:
    return Host(collected.publish)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def loop(engine: ScriptedEngine, host: Host) -> Iterator[BatchLoop]:
    loop = BatchLoop(engine, host)
    yield loop
    loop.stop()
