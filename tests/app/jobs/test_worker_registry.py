"""What the registry of workers keeps, in a real Redis."""

import json
from dataclasses import replace

from app.jobs import keys
from app.jobs.redis_client import RedisClient
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, read_workers

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


def test_what_a_newer_worker_announces_beyond_what_is_known_here_is_left_out(redis_client: RedisClient) -> None:
    announce(redis_client, replace(FAILED, version="9.9.9+00000000"))
    key = keys.worker(FAILED.id)
    redis_client.set(key, json.dumps({**json.loads(redis_client.get(key) or ""), "mood": "good"}))
    assert [worker.version for worker in read_workers(redis_client)] == ["9.9.9+00000000"]
