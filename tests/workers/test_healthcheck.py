"""The health check of this host's worker, from what the worker announces in a real Redis."""

import socket
from dataclasses import replace

import pytest

from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, retire
from workers.healthcheck import main
from workers.main import new_worker_id

HERE = WorkerInfo(id=new_worker_id(), model="m", family="llama", state=WorkerState.READY, slots=4, running=1)


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setenv("LLM_API_REDIS_URL", redis_url)


def test_the_workers_of_a_host_are_not_those_of_a_host_whose_name_begins_alike() -> None:
    others = [replace(HERE, id=f"{socket.gethostname()}-2-7-abcdef01"), replace(HERE, id="another-host-7-abcdef01")]
    assert [worker.host == socket.gethostname() for worker in (HERE, *others)] == [True, False, False]


@pytest.mark.parametrize("state", [WorkerState.LOADING, WorkerState.READY, WorkerState.DRAINING])
def test_a_worker_that_announces_itself_is_well(
    redis_client: RedisClient, state: WorkerState, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(redis_client, replace(HERE, state=state))
    assert main() == 0
    assert f"is {state}, 1 of 4 slots taken" in capsys.readouterr().out


def test_a_worker_that_gave_up_is_unwell_and_the_reason_is_printed(
    redis_client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(redis_client, replace(HERE, state=WorkerState.FAILED, detail="the model file is not there"))
    assert main() == 1
    assert capsys.readouterr().err == "unwell: the model file is not there\n"


def test_a_worker_that_stands_still_is_unwell_and_the_reason_is_printed(
    redis_client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(redis_client, replace(HERE, state=WorkerState.STALLED, detail="the model has stood still for 70 s"))
    assert main() == 1
    assert capsys.readouterr().err == "unwell: the model has stood still for 70 s\n"


def test_a_restarted_worker_is_well_while_its_predecessors_failure_is_remembered(redis_client: RedisClient) -> None:
    announce(redis_client, replace(HERE, state=WorkerState.FAILED))
    announce(redis_client, replace(HERE, id=new_worker_id(), state=WorkerState.LOADING))
    assert main() == 0


def test_a_worker_that_is_silent_or_gone_is_unwell(redis_client: RedisClient) -> None:
    assert main() == 1
    announce(redis_client, HERE)
    retire(redis_client, HERE.id)
    assert main() == 1


def test_a_worker_of_another_host_does_not_count(redis_client: RedisClient) -> None:
    announce(redis_client, replace(HERE, id="another-host-1-abcdef01"))
    assert main() == 1


def test_no_answer_from_redis_is_one_line_without_the_url(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_API_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    assert main() == 1
    assert capsys.readouterr().err == "unwell: no reply from Redis (ConnectionError)\n"


def test_a_faulty_configuration_is_unwell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LLM_API_WORKER__SLOTS", "many")
    assert main() == 1
    assert "worker.slots" in capsys.readouterr().err
