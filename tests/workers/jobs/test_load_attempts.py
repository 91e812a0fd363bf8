"""Which loads of a model count as failed, and when no more are tried: a real Valkey, and ids of real processes."""

import subprocess
import sys
import uuid

import pytest

from app.config.settings import Config
from app.errors import ModelUnavailable
from app.jobs.redis_client import RedisClient
from workers.jobs.load_attempts import MAX_FAILED_LOADS, LoadAttempts

CONFIG = Config(model_name="m", setup_params={"path": "model.gguf"})


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


class Dies(BaseException):
    """Stands for the death of the process: nothing after it is done."""


def fail_to_load(client: RedisClient, pid: int, *, config: Config = CONFIG, host: str = "here") -> None:
    """Begin to load in a process that no longer runs."""
    with pytest.raises(Dies), LoadAttempts.of_model(client, config, f"{host}-{pid}-{uuid.uuid4().hex[:8]}").counted():
        raise Dies


def load(client: RedisClient, config: Config = CONFIG, host: str = "here") -> bool:
    """Return whether a new worker is allowed to load."""
    try:
        with LoadAttempts.of_model(client, config, f"{host}-1-new").counted():
            return True
    except ModelUnavailable as error:
        assert "3 workers have died while loading the model" in error.detail and "\n" not in error.detail
        return False


@pytest.fixture(scope="module")
def pids() -> list[int]:
    return [ended_process() for _ in range(MAX_FAILED_LOADS)]


def test_after_three_deaths_the_model_is_refused_and_then_tried_once_each_time(
    redis_client: RedisClient, pids: list[int]
) -> None:
    for pid in pids:
        fail_to_load(redis_client, pid)
    with pytest.raises(ModelUnavailable), LoadAttempts.of_model(redis_client, CONFIG, "here-1-new").counted():
        raise AssertionError("loaded")
    fail_to_load(redis_client, pids[0])
    assert not load(redis_client)
    assert load(redis_client), "what was wrong has been mended"
    assert redis_client.exists(*redis_client.execute_command("KEYS", "llm:loads:*"), "none") == 0


@pytest.mark.parametrize("ending", [SystemExit(), KeyboardInterrupt(), ModelUnavailable("it is not there")])
def test_a_load_that_was_stopped_or_explains_itself_does_not_count(
    redis_client: RedisClient, pids: list[int], ending: BaseException
) -> None:
    for number in range(MAX_FAILED_LOADS):
        attempts = LoadAttempts.of_model(redis_client, CONFIG, f"here-{pids[0]}-{number}")
        with pytest.raises(type(ending)), attempts.counted():
            raise ending
    assert load(redis_client)


def test_a_load_that_succeeds_clears_the_count(redis_client: RedisClient, pids: list[int]) -> None:
    for pid in pids[:2]:
        fail_to_load(redis_client, pid)
    assert load(redis_client)
    fail_to_load(redis_client, pids[2])
    assert load(redis_client)


def test_an_error_of_the_engine_counts_as_a_death(redis_client: RedisClient, pids: list[int]) -> None:
    for number, pid in enumerate(pids):
        with (
            pytest.raises(ValueError, match="float8"),
            LoadAttempts.of_model(redis_client, CONFIG, f"here-{pid}-{number}").counted(),
        ):
            raise ValueError("float8")
    assert not load(redis_client)


def test_workers_that_still_load_other_models_and_other_hosts_do_not_count(
    redis_client: RedisClient, pids: list[int]
) -> None:
    living = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(3)]
    for process in living:
        fail_to_load(redis_client, process.pid)
    for pid in pids:
        fail_to_load(redis_client, pid, host="there")
        fail_to_load(redis_client, pid, config=Config(model_name="m", setup_params={"path": "other.gguf"}))
    allowed = load(redis_client)
    for process in living:
        process.communicate(b"\n")
    assert allowed
    assert not load(redis_client, host="there")
