"""Idempotency keys: the same request again gives the job it gave before."""

import threading

import pytest
import redis

from app.contract import keys
from app.contract.errors import Conflict
from app.contract.job_store import JobStore
from app.contract.jobs import JobRequest, Kind
from app.contract.redis_client import RedisClient


def request(prompt: str = "hello") -> JobRequest:
    return JobRequest(kind=Kind.GENERATE, prompt=prompt, params={"temperature": 0.5})


def raw(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, decode_responses=True)


def test_the_same_request_under_the_same_key_is_one_job(store: JobStore, redis_url: str) -> None:
    first = store.admit(request(), "me", idempotency_key="a")
    assert store.admit(request(), "me", idempotency_key="a") == first
    store.cancel(first.id)
    assert store.admit(request(), "me", idempotency_key="a") == store.read(first.id)
    assert raw(redis_url).llen("llm:jobs.m:1") == 1


def test_whether_its_answer_is_streamed_makes_no_other_request(store: JobStore) -> None:
    first = store.admit(JobRequest(kind=Kind.GENERATE, prompt="p"), "me", idempotency_key="a")
    assert (
        store.admit(JobRequest(kind=Kind.GENERATE, prompt="p", stream=True), "me", idempotency_key="a").id == first.id
    )


def test_another_request_under_the_same_key_is_a_conflict(store: JobStore) -> None:
    store.admit(request("one"), "me", idempotency_key="a")
    with pytest.raises(Conflict):
        store.admit(request("another"), "me", idempotency_key="a")


def test_a_key_is_its_owners_alone(store: JobStore) -> None:
    mine, yours = (store.admit(request(), owner, idempotency_key="a") for owner in ("me", "you"))
    assert mine.id != yours.id


def test_a_known_key_is_answered_though_the_queue_is_full_and_no_worker_lives(
    store: JobStore, redis_client: RedisClient
) -> None:
    first, *_ = (store.admit(request(), "me", idempotency_key=key) for key in "abc")
    redis_client.delete(keys.alive("m"))
    assert store.admit(request(), "me", idempotency_key="a") == first


def test_a_key_is_forgotten_with_its_job(store: JobStore, redis_url: str) -> None:
    first = store.admit(request(), "me", idempotency_key="a")
    store.cancel(first.id)
    store.forget(first)
    assert raw(redis_url).keys("llm:idempotency:*") == []
    assert store.admit(request("another"), "me", idempotency_key="a").id != first.id


def test_one_key_in_many_threads_at_once_is_one_job(store: JobStore) -> None:
    barrier = threading.Barrier(8)
    ids: list[str] = []

    def ask() -> None:
        barrier.wait()
        ids.append(store.admit(request(), "me", idempotency_key="a").id)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
