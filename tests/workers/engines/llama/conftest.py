"""The small real model, loaded once for all tests of the family."""

from collections.abc import Iterator

import pytest

from tests.workers.engines.llama.driver import make_engine
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.vocabulary import LlamaVocabulary


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[LlamaEngine]:
    engine = make_engine(slots=32)
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: LlamaEngine) -> Iterator[LlamaEngine]:
    """The shared engine, whose cache every test must leave empty."""
    yield shared_engine
    cells = shared_engine.used_cells()
    shared_engine.reset()
    assert cells == 0, "a test left cells behind"


@pytest.fixture(scope="session")
def vocabulary(shared_engine: LlamaEngine) -> LlamaVocabulary:
    return shared_engine._model.vocabulary
