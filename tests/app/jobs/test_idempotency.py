"""Idempotency keys in the admitting step of `app.jobs.store`, in a real Valkey."""

import threading
from dataclasses import replace

import pytest
import redis

from app.errors import Conflict, NoWorker
from app.jobs import keys
from app.jobs.job import Job, JobRequest, Kind, Priority, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.principals import key_named
from tests.waiting import scaled

REQUEST = JobRequest(kind=Kind.GENERATE, prompt="hello", params={"temperature": 0.5, "top_k": 3})


def admit(store: JobStore, request: JobRequest = REQUEST, *, key: str = "key-1", owner: str = "me") -> Job:
    return store.admit(request, key_named(owner), idempotency_key=key)


def raw(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, decode_responses=True)


def idempotency_key(url: str) -> str:
    (name,) = raw(url).keys("llm:idempotency:*")
    assert isinstance(name, str)
    return name


def test_the_same_key_and_request_give_the_same_job(store: JobStore, redis_url: str) -> None:
    first, second = admit(store), admit(store)
    assert first == second
    assert raw(redis_url).llen(keys.doorbells("m")) == raw(redis_url).zcard(keys.waiting("m")) == 1


def test_the_order_of_the_parameters_and_streaming_make_no_other_request(store: JobStore) -> None:
    reordered = replace(REQUEST, params={"top_k": 3, "temperature": 0.5}, stream=True)
    assert admit(store) == admit(store, reordered)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, prompt="hello "),
        replace(REQUEST, params={}),
        replace(REQUEST, kind=Kind.EMBED),
        replace(REQUEST, priority=Priority.HIGH),
        replace(REQUEST, timeout_seconds=3),
        replace(REQUEST, expires_in_seconds=3),
        replace(REQUEST, ttl_seconds=3),
    ],
)
def test_another_request_under_the_same_key_is_a_conflict_and_makes_no_job(store: JobStore, other: JobRequest) -> None:
    job = admit(store)
    with pytest.raises(Conflict, match="use a new key"):
        admit(store, other)
    assert store.list_jobs("me") == [job]


def test_a_request_to_another_model_is_another_request(
    store: JobStore, redis_client: RedisClient, redis_url: str
) -> None:
    admit(store)
    redis_client.set(keys.alive("n"), "any-worker")
    other_model = JobStore(redis_client, model="n", ttl_seconds=60, max_queued=3)
    with pytest.raises(Conflict):
        admit(other_model)


def test_owners_do_not_share_keys(store: JobStore) -> None:
    assert admit(store).id != admit(store, owner="you").id


def test_the_key_itself_is_stored_nowhere_in_redis(store: JobStore, redis_url: str) -> None:
    admit(store, key="a-telling-key")
    assert raw(redis_url).keys("*a-telling-key*") == []


def test_threads_that_send_the_same_key_at_once_all_get_one_job(store: JobStore, redis_url: str) -> None:
    all_ready, job_ids = threading.Barrier(16), []

    def send() -> None:
        all_ready.wait()
        job_ids.append(admit(store).id)

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(10))
    assert len(job_ids) == 16 and len(set(job_ids)) == 1
    assert raw(redis_url).llen(keys.doorbells("m")) == 1


def test_a_known_key_is_answered_though_the_queue_is_full_and_no_worker_lives(
    store: JobStore, redis_client: RedisClient
) -> None:
    first, *_ = [admit(store, key=str(number)) for number in range(3)]
    assert admit(store, key="0") == first
    redis_client.delete(keys.alive("m"))
    assert admit(store, key="0") == first


def test_a_refused_request_leaves_its_key_free(store: JobStore, redis_client: RedisClient) -> None:
    redis_client.delete(keys.alive("m"))
    with pytest.raises(NoWorker):
        admit(store)
    redis_client.set(keys.alive("m"), "any-worker")
    assert admit(store, replace(REQUEST, prompt="another")).status is Status.QUEUED


def test_a_job_that_has_ended_comes_with_its_outcome(store: JobStore) -> None:
    store.cancel(admit(store).id)
    job = admit(store)
    assert job.status is Status.CANCELED
    assert job == store.read(job.id)


def test_a_key_lives_exactly_as_long_as_its_job(store: JobStore, redis_url: str) -> None:
    job = admit(store, replace(REQUEST, ttl_seconds=7))
    key = idempotency_key(redis_url)
    assert raw(redis_url).ttl(key) == -1
    store.cancel(job.id)
    assert raw(redis_url).pexpiretime(key) == raw(redis_url).pexpiretime(keys.job(job.id))
    assert 0 < raw(redis_url).ttl(key) <= 7


def test_a_forgotten_job_frees_its_key(store: JobStore) -> None:
    first = admit(store)
    store.cancel(first.id)
    store.delete(store.read(first.id))
    assert admit(store, replace(REQUEST, prompt="another")).id != first.id


def test_a_key_whose_job_is_gone_is_free_and_keeps_nothing_of_it(store: JobStore, redis_url: str) -> None:
    first = admit(store)
    store.cancel(first.id)
    raw(redis_url).delete(keys.job(first.id))
    second = admit(store)
    assert second.id != first.id and admit(store) == second
    assert raw(redis_url).ttl(idempotency_key(redis_url)) == -1
