"""Engines over tiny random models, loaded once for all tests of the family."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.workers.engines.transformers.driver import make_engine
from tests.workers.engines.transformers.models import smollm2, tiny
from workers.engines.transformers.engine import HuggingfaceEngine

_ENGINES: dict[str, HuggingfaceEngine] = {}


def engine_of(architecture: str, **options: Any) -> HuggingfaceEngine:
    key = f"{architecture} {sorted(options.items())}"
    if key not in _ENGINES:
        folder = smollm2() if architecture == "smollm2" else tiny(architecture)
        _ENGINES[key] = make_engine(folder, **options)
    return _ENGINES[key]


@pytest.fixture(scope="package", autouse=True)
def forget_engines() -> Iterator[None]:
    yield
    _ENGINES.clear()


@pytest.fixture
def llama() -> HuggingfaceEngine:
    return engine_of("llama")


@pytest.fixture
def mamba() -> HuggingfaceEngine:
    return engine_of("mamba")
