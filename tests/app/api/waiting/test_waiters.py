"""Waiting for jobs, against a real Valkey and with the worker's own scripts."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from app.api.waiting import subscriber
from app.api.waiting.waiters import ClientGone, Waiter, Waiters
from app.errors import JobNotFound, ShuttingDown, TooManyWaiters
from app.jobs import keys
from app.jobs.events import FROM_START, Event
from app.jobs.job import FinishReason, JobRequest, Kind, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim, JobStore, new_job_id
from tests.waiting import until
from tests.workers.batching.scripted_engine import prompt
from workers.batching.sequence import BatchSequence, Outcome, Update
from workers.jobs.publisher import Publisher

DONE = Outcome(status=Status.SUCCEEDED, finish_reason=FinishReason.STOP)


@pytest.fixture
def waiters(redis_url: str, redis_client: RedisClient, store: JobStore) -> Iterator[Waiters]:
    waiters = Waiters(redis_url, redis_client, store, max_waiters=4)
    yield waiters
    waiters.close()


@pytest.fixture
def publisher(redis_client: RedisClient, store: JobStore) -> Publisher:
    return Publisher(redis_client, model="m", ttl_seconds=60, on_fenced=lambda _: None, give_back=store.hand_back)


def admit(store: JobStore, job_id: str | None = None) -> str:
    return store.admit(JobRequest(kind=Kind.GENERATE, prompt="p", stream=True), "me", job_id).id


def claim(store: JobStore, job_id: str) -> Claim:
    claimed = store.claim("worker-1")
    assert claimed is not None and claimed.job_id == job_id
    return claimed


def finish(store: JobStore, publisher: Publisher, job_id: str, text: str = "done") -> None:
    publisher.open(claim(store, job_id))
    sequence = BatchSequence(job_id, prompt("text"))
    publisher.publish([Update(sequence=sequence, text=text, tokens=[1], outcome=DONE)])


def test_a_waiter_gets_the_final_job(waiters: Waiters, store: JobStore, publisher: Publisher) -> None:
    job_id = new_job_id()
    with waiters.expect(job_id) as waiter:
        admit(store, job_id)
        finish(store, publisher, job_id)
        job = waiter.end(5)
    assert job is not None and job.output is not None
    assert (job.id, job.status, job.output.text) == (job_id, Status.SUCCEEDED, "done")


def test_waiting_for_a_job_that_is_final_already_returns_at_once(waiters: Waiters, store: JobStore) -> None:
    job_id = admit(store)
    store.cancel(job_id)
    job = waiters.wait(job_id, 5)
    assert job is not None and job.status is Status.CANCELED


def test_when_the_time_is_over_there_is_no_job(waiters: Waiters, store: JobStore) -> None:
    assert waiters.wait(admit(store), 0.05) is None


def test_a_record_that_is_not_there_yet_is_no_news(waiters: Waiters, store: JobStore, publisher: Publisher) -> None:
    job_id = new_job_id()
    with waiters.expect(job_id) as waiter:
        waiters._read_all(waiters._redis)
        admit(store, job_id)
        finish(store, publisher, job_id)
        assert waiter.end(5) is not None


def test_a_lost_hint_costs_a_delay_not_the_answer(
    waiters: Waiters, store: JobStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "REREAD_SECONDS", 0.1)
    job_id = admit(store)
    timer = threading.Timer(0.2, lambda: _end_without_a_hint(redis_url, job_id))
    timer.start()
    job = waiters.wait(job_id, 10)
    timer.join()
    assert job is not None and job.status is Status.CANCELED


def _end_without_a_hint(redis_url: str, job_id: str) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(keys.job(job_id), "status", "canceled")


def test_the_subscription_is_made_again_after_its_connection_was_killed(
    waiters: Waiters, store: JobStore, publisher: Publisher, redis_url: str
) -> None:
    job_id = admit(store)
    assert waiters.wait(job_id, 0.05) is None
    with redis.Redis.from_url(redis_url) as raw:
        until(lambda: raw.client_kill_filter(_type="pubsub"))
    finish(store, publisher, job_id)
    assert waiters.wait(job_id, 10) is not None


def test_the_first_waiter_of_a_process_waits_for_nothing_but_its_job(
    waiters: Waiters, store: JobStore, publisher: Publisher
) -> None:
    job_id = new_job_id()
    started = time.monotonic()
    with waiters.expect(job_id) as waiter:
        assert time.monotonic() - started < 0.2
        admit(store, job_id)
        finish(store, publisher, job_id)
        assert waiter.end(1) is not None, "read when the subscription stood, as its hint may have come before"


def test_a_deleted_job_is_told_to_those_who_wait_and_follow(
    waiters: Waiters, store: JobStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "REREAD_SECONDS", 0.05)
    job_id = admit(store)
    timer = threading.Timer(0.1, lambda: redis_client.delete(keys.job(job_id), keys.events(job_id)))
    timer.start()
    with pytest.raises(JobNotFound):
        waiters.wait(job_id, 10)
    timer.join()
    with pytest.raises(JobNotFound):
        list(waiters.follow(job_id))


def test_a_client_that_hangs_up_is_noticed_while_it_waits(waiters: Waiters, store: JobStore) -> None:
    ours, theirs = socket.socketpair()
    timer = threading.Timer(0.1, theirs.close)
    timer.start()
    started = time.monotonic()
    with pytest.raises(ClientGone):
        waiters.wait(admit(store), 10, client_socket=ours)
    assert time.monotonic() - started < 5
    timer.join()
    ours.close()


def test_a_client_that_sends_its_next_request_early_has_not_left(waiters: Waiters, store: JobStore) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"GET / HTTP/1.1")
        assert waiters.wait(admit(store), 0.2, client_socket=ours) is None
        assert ours.recv(3) == b"GET", "its bytes are left for the server to read"


def test_more_waiters_than_places_are_refused(waiters: Waiters) -> None:
    with contextlib.ExitStack() as places:
        for name in "1234":
            places.enter_context(waiters.expect(name))
        with pytest.raises(TooManyWaiters):
            places.enter_context(waiters.expect("5"))
    with waiters.expect("6"):
        pass


def test_a_follower_gets_every_event_in_order_to_the_end(
    waiters: Waiters, store: JobStore, publisher: Publisher
) -> None:
    job_id = admit(store)
    publisher.open(claim(store, job_id))
    sequence = BatchSequence(job_id, prompt("text"))

    def speak() -> None:
        for number in range(50):
            publisher.publish([Update(sequence=sequence, text=f"{number} ", tokens=[number])])
            time.sleep(0.002)
        publisher.publish([Update(sequence=sequence, outcome=DONE)])

    speaker = threading.Thread(target=speak)
    speaker.start()
    events = [event for event in waiters.follow(job_id) if event is not None]
    speaker.join()
    assert "".join(event.data["text"] for event in events if event.type == "delta") == "".join(
        f"{number} " for number in range(50)
    )
    assert [event.type for event in (events[0], events[-1])] == ["started", "end"]


def test_an_event_is_told_out_of_its_hint_to_who_has_read_all_before_it(
    waiters: Waiters, redis_client: RedisClient
) -> None:
    hint = 'j 5-0 6-0 delta {"text": "as the hint has it"}'
    up_to_date, behind = Waiter("j", "5-0", waiters.sockets), Waiter("j", FROM_START, waiters.sockets)
    ending = Waiter("j", None, waiters.sockets)
    for waiter in (up_to_date, behind, ending):
        waiters.enter(waiter)
    redis_client.xadd(keys.events("j"), {"type": "started", "data": '{"attempt": 1}'}, id="5-0")
    redis_client.xadd(keys.events("j"), {"type": "delta", "data": '{"text": "as Redis has it"}'}, id="6-0")
    for _ in range(2):  # it may be heard behind a reading of the whole stream, too
        waiters._take(hint, redis_client)
    assert _texts(up_to_date) == ["as the hint has it"], "without a look into Redis"
    assert _texts(behind) == [None, "as Redis has it"]
    assert ending.news.empty()


def _texts(waiter: Waiter) -> list[str | None]:
    told = [waiter.news.get_nowait()[1] for _ in range(waiter.news.qsize())]
    return [event.data.get("text") for event in told if isinstance(event, Event)]


def test_a_follower_hears_at_once_that_its_job_has_been_started(waiters: Waiters, store: JobStore) -> None:
    assert waiters.wait(admit(store), 0.3) is None  # everything has been read again, and will be in seconds only
    store.claim("worker-1")
    job_id = new_job_id()
    with waiters.expect(job_id, FROM_START) as waiter:
        admit(store, job_id)
        claim(store, job_id)
        started = next(waiter.events(2.0))
    assert started is not None and started.type == "started"


def test_following_resumes_after_any_event(waiters: Waiters, store: JobStore, publisher: Publisher) -> None:
    job_id = admit(store)
    finish(store, publisher, job_id)
    events = [event for event in waiters.follow(job_id) if event is not None]
    again = [event for event in waiters.follow(job_id, events[0].id) if event is not None]
    assert again == events[1:]


def test_a_silent_job_gives_heartbeats(waiters: Waiters, store: JobStore) -> None:
    job_id = admit(store)
    following = waiters.follow(job_id, heartbeat_seconds=0.02)
    assert [next(following), next(following)] == [None, None]
    following.close()  # type: ignore[attr-defined]
    assert waiters._count == 0


def test_a_process_that_ends_tells_those_who_wait_where_the_job_goes_on(waiters: Waiters, store: JobStore) -> None:
    job_id = admit(store)
    following = waiters.follow(job_id, heartbeat_seconds=0.01)
    assert next(following) is None
    timer = threading.Timer(0.1, waiters.shut_down)
    timer.start()
    with pytest.raises(ShuttingDown) as waited:
        waiters.wait(job_id, 5)
    with pytest.raises(ShuttingDown) as followed:
        list(following)
    timer.join()
    assert [waited.value.location, followed.value.location] == [f"/jobs/{job_id}", f"/jobs/{job_id}/events"]
    assert store.read(job_id).status is Status.QUEUED


def test_a_process_that_ends_takes_nobody_more(waiters: Waiters) -> None:
    waiters.shut_down()
    with pytest.raises(ShuttingDown, match="send the request again") as refused, waiters.expect("1"):
        pass
    assert refused.value.location is None
    assert waiters._count == 0


def test_events_that_came_before_the_end_of_the_process_are_not_lost(
    waiters: Waiters, store: JobStore, publisher: Publisher
) -> None:
    job_id = admit(store)
    with waiters.expect(job_id, "0-0") as waiter:
        finish(store, publisher, job_id)
        until(lambda: store.read(job_id).status.is_final)
        waiters._read([waiter], waiters._redis)
        waiters.shut_down()
        assert [event.type for event in waiter.events(1) if event] == ["started", "delta", "end"]
