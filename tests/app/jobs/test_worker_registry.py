"""What the registry of workers keeps, in a real Redis."""

import json
from dataclasses import replace

from app.jobs import keys
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import (
    WorkerInfo,
    WorkerState,
    announce,
    no_worker,
    prune_failures,
    read_workers,
    why_none_will_come,
    withdraw,
)

FAILED = WorkerInfo(
    id="box-7-aaaaaaaa", model="m", family="llama", state=WorkerState.FAILED, detail="there is no such file"
)


def test_a_container_that_fails_again_and_again_is_listed_once(redis_client: RedisClient) -> None:
    for number in range(6):
        announce(redis_client, replace(FAILED, id=f"box-{number}-aaaaaaaa"))
    assert [worker.id for worker in read_workers(redis_client)] == ["box-5-aaaaaaaa"]


def test_another_failure_and_that_of_another_host_are_listed_beside_it(redis_client: RedisClient) -> None:
    others = [
        replace(FAILED, id="box-8-bbbbbbbb", detail="no memory"),
        replace(FAILED, id="box-2-7-aaaaaaaa"),
        replace(FAILED, id="box-9-cccccccc", model="n"),
    ]
    for info in (FAILED, *others):
        announce(redis_client, info)
    assert {worker.id for worker in read_workers(redis_client)} == {worker.id for worker in (FAILED, *others)}


def test_what_a_host_reported_before_is_forgotten_and_what_others_report_stays(redis_client: RedisClient) -> None:
    ready = replace(FAILED, id="box-8-bbbbbbbb", state=WorkerState.READY)
    others = [replace(FAILED, id="box-2-7-aaaaaaaa"), replace(FAILED, id="box-9-cccccccc", model="n"), ready]
    for info in (FAILED, *others):
        announce(redis_client, info)
    prune_failures(redis_client, "m", "box")
    assert {worker.id for worker in read_workers(redis_client)} == {worker.id for worker in others}


def test_what_a_newer_worker_announces_beyond_what_is_known_here_is_left_out(redis_client: RedisClient) -> None:
    announce(redis_client, replace(FAILED, version="9.9.9+00000000"))
    key = keys.worker(FAILED.id)
    redis_client.set(key, json.dumps({**json.loads(redis_client.get(key) or ""), "mood": "good"}))
    assert [worker.version for worker in read_workers(redis_client)] == ["9.9.9+00000000"]


READY = replace(FAILED, id="box-8-bbbbbbbb", state=WorkerState.READY, detail="")
REASON = "no worker serves 'm': the worker failed (there is no such file); correct that, then start it again"


def test_jobs_are_admitted_no_more_when_the_last_worker_has_given_up(redis_client: RedisClient) -> None:
    announce(redis_client, READY)
    announce(redis_client, FAILED)
    withdraw(redis_client, "m")
    assert redis_client.exists(keys.alive("m")), "another one serves"
    announce(redis_client, replace(READY, state=WorkerState.FAILED))
    withdraw(redis_client, "m")
    assert not redis_client.exists(keys.alive("m"))


def test_why_no_worker_will_come_is_known_once_one_has_failed_and_none_lives(redis_client: RedisClient) -> None:
    assert why_none_will_come(redis_client, "m") is None, "one may be started any moment"
    announce(redis_client, replace(READY, state=WorkerState.LOADING))
    announce(redis_client, FAILED)
    assert why_none_will_come(redis_client, "m") is None, "another one loads"
    redis_client.delete(keys.alive("m"))
    assert why_none_will_come(redis_client, "m") == REASON


def test_a_refused_request_gets_the_reason_of_a_failed_worker_of_its_model(redis_client: RedisClient) -> None:
    announce(redis_client, replace(FAILED, id="box-9-cccccccc", model="n", detail="no memory"))
    assert no_worker(redis_client, "m").detail == "no worker serves 'm'; start one and try again"
    announce(redis_client, FAILED)
    assert no_worker(redis_client, "m").detail == REASON
