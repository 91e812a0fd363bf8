"""Running services, one per model, shared by the tests of this folder. Each has its own Valkey."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.stack import SMOLLM2, Stack, engine_config, running_stack
from tests.valkey import running_valkey


def _stack(tmp_path_factory: pytest.TempPathFactory, name: str, config: dict[str, object]) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp(name)
    config = config | {"models_dir": str(folder / "models")}
    with running_valkey(folder / "valkey") as server, running_stack(folder, server.url, config) as stack:
        yield stack


@pytest.fixture(scope="package")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from _stack(tmp_path_factory, "smollm2", SMOLLM2 | {"adapters": {"runtime_loading": True}})


@pytest.fixture(scope="package")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from _stack(tmp_path_factory, "faulty", engine_config("faulty:FailsOnDemand", cache={"ttl": 60}))


@pytest.fixture
def http(smollm2: Stack) -> Iterator[httpx.Client]:
    with smollm2.client() as client:
        yield client


@pytest.fixture
def client(smollm2: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none", max_retries=0) as client:
        yield client
