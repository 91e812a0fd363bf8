"""The job service and its pending jobs, against a real Valkey and with the worker's own publisher."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from app.api.adapters import Adapters
from app.api.job_service import JobService
from app.api.pending_jobs import WAIT_GRACE_SECONDS, Caller, PastEvents, PendingJobs
from app.api.queue_estimate import QueueEstimate
from app.api.waiting import waiters as waiting
from app.api.waiting.waiters import ClientGone, Inbox, Waiter, Waiters
from app.config.settings import Config
from app.errors import JobNotFound, NoWorker, PromptTooLong, ShuttingDown, TooManyWaiters, WaitTimeout
from app.jobs import keys
from app.jobs.events import FROM_START, Delta, End, Event, EventEntry, Started
from app.jobs.job import Job, JobRequest, Kind, OnDisconnect, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, withdraw
from tests import principals
from tests.waiting import scaled, until
from tests.workers.jobs.publisher_bench import Bench


@pytest.fixture
def waiters(redis_url: str, redis_client: RedisClient, store: JobStore) -> Iterator[Waiters]:
    waiters = Waiters(redis_url, redis_client, store, max_requests=4)
    yield waiters
    waiters.close()


@pytest.fixture
def jobs(redis_client: RedisClient, store: JobStore, waiters: Waiters) -> JobService:
    config, estimate = Config(model_name="m"), QueueEstimate(redis_client, model="m")
    return JobService(config, redis_client, store, waiters, estimate, Adapters(config))


@pytest.fixture
def publisher(redis_client: RedisClient, store: JobStore) -> Bench:
    return Bench(redis_client, store)


ME = Caller(principal=principals.ME)


def request(*, stream: bool = False, seconds: float = 10.0) -> JobRequest:
    """Make a request that waits so many seconds for its job."""
    return JobRequest(kind=Kind.GENERATE, prompt="p", stream=stream, timeout_seconds=seconds - WAIT_GRACE_SECONDS)


def admit(store: JobStore) -> Job:
    return store.admit(request(stream=True), ME.principal)


def opened(jobs: JobService, *, with_events: bool = False, caller: Caller = ME, seconds: float = 10.0) -> PendingJobs:
    """Open a request that has made one job."""
    pending = jobs.begin_waiting(caller, OnDisconnect.CONTINUE, with_events=with_events)
    pending.submit([request(stream=with_events, seconds=seconds)])
    return pending


def events_of(pending: PendingJobs | PastEvents) -> list[EventEntry]:
    """Return all events up to the end."""
    entries = []
    while not pending.has_ended:
        item = pending.next_event(5)
        assert item is not None
        entries.append(item[1])
    pending.close()
    return entries


def serve(client: RedisClient, slots: int) -> None:
    announce(client, WorkerInfo(id="w", model="m", family="test", state=WorkerState.READY, slots=slots))


def finish(publisher: Bench, job_id: str, text: str = "done") -> None:
    job = publisher.claim()
    assert job.id == job_id
    publisher.say(job, text, end=True)


@pytest.mark.parametrize(
    ("token_bytes", "size", "is_rejected"),
    [((8, 8), 200_000, True), ((8, 16), 200_000, False), ((8, 0), 200_000, False), ((0, 0), 4_000_000, False)],
    ids=["too long for both", "one takes it", "one does not say", "none says"],
)
def test_a_prompt_too_long_for_every_worker_makes_no_job(
    jobs: JobService, redis_client: RedisClient, token_bytes: tuple[int, int], size: int, is_rejected: bool
) -> None:
    for number, known in enumerate(token_bytes):
        ready = WorkerInfo(id=f"w{number}", model="m", family="test", state=WorkerState.READY)
        announce(redis_client, replace(ready, slots=1, context_tokens=16_384, token_bytes=known))
    prompt = replace(request(), prompt="a" * size)
    if not is_rejected:
        assert jobs.submit(prompt, ME.principal).status is Status.QUEUED
        return
    with pytest.raises(PromptTooLong, match=r"maximum context length is 16384 tokens.*at least 25000 in prompt"):
        jobs.submit(prompt, ME.principal)
    assert redis_client.zcard(keys.waiting("m")) == 0


def test_a_request_gets_the_final_job(jobs: JobService, store: JobStore, publisher: Bench) -> None:
    with opened(jobs) as pending:
        finish(publisher, pending.jobs[0].id)
        (job,) = pending.results()
    assert job.output is not None
    assert (job.id, job.status, job.output.text) == (pending.jobs[0].id, Status.SUCCEEDED, "done")


def test_waiting_for_a_job_that_is_final_already_returns_at_once(jobs: JobService, store: JobStore) -> None:
    job = admit(store)
    store.cancel(job.id)
    assert jobs.wait(job, 5).status is Status.CANCELED


def test_when_the_time_is_over_the_job_is_returned_as_it_is(jobs: JobService, store: JobStore) -> None:
    assert jobs.wait(admit(store), 0.05).status is Status.QUEUED


def test_a_request_waits_no_longer_than_its_job_may_run(jobs: JobService, store: JobStore) -> None:
    pending = opened(jobs, seconds=0.05)
    with pytest.raises(WaitTimeout, match=f"read it at /jobs/{pending.jobs[0].id}"), pending:
        pending.results()


def test_a_record_that_is_not_there_yet_is_not_missing(waiters: Waiters, store: JobStore) -> None:
    inbox: Inbox = queue.SimpleQueue()
    with waiters.admit_request():
        waiters.add(waiter := Waiter("1", None, inbox))
        waiters._read_all(waiters._redis)
        assert inbox.empty()
        waiter.is_admitted = True
        waiters._read_all(waiters._redis)
    job_id, error = inbox.get_nowait()
    assert job_id == "1" and isinstance(error, JobNotFound)


def test_a_lost_notification_costs_a_delay_not_the_answer(
    jobs: JobService, store: JobStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 0.1)
    job = admit(store)
    timer = threading.Timer(0.2, lambda: _end_without_a_notification(redis_url, job.id))
    timer.start()
    assert jobs.wait(job, 10).status is Status.CANCELED
    timer.join()


def _end_without_a_notification(redis_url: str, job_id: str) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(keys.job(job_id), "status", "canceled")


def test_the_subscription_is_made_again_after_its_connection_was_killed(
    jobs: JobService, store: JobStore, publisher: Bench, redis_url: str
) -> None:
    job = admit(store)
    assert not jobs.wait(job, 0.05).status.is_final
    with redis.Redis.from_url(redis_url) as raw:
        until(lambda: raw.client_kill_filter(_type="pubsub"))
    finish(publisher, job.id)
    assert jobs.wait(job, 10).status.is_final


def test_the_first_request_of_a_process_waits_for_nothing_but_its_job(
    jobs: JobService, store: JobStore, publisher: Bench
) -> None:
    started = time.monotonic()
    with opened(jobs, seconds=1) as pending:
        assert time.monotonic() - started < 0.2
        finish(publisher, pending.jobs[0].id)
        assert pending.results(), "read once the subscription is active, as the notification may have come before"


def test_a_job_that_is_deleted_ends_the_wait_for_it(
    jobs: JobService, store: JobStore, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 0.05)
    job = admit(store)
    with jobs.follow(job) as followed:  # type: ignore[union-attr]
        timer = threading.Timer(0.1, lambda: redis_client.delete(keys.job(job.id), keys.events(job.id)))
        timer.start()
        with pytest.raises(JobNotFound):
            jobs.wait(job, 10)
        timer.join()
        with pytest.raises(JobNotFound):
            events_of(followed)
    with pytest.raises(JobNotFound):
        events_of(jobs.follow(job))


def test_a_client_that_hangs_up_is_noticed_while_it_waits(jobs: JobService) -> None:
    ours, theirs = socket.socketpair()
    timer = threading.Timer(0.1, theirs.close)
    timer.start()
    started = time.monotonic()
    with opened(jobs, caller=Caller(principal=principals.ME, client_socket=ours)) as pending, pytest.raises(ClientGone):
        pending.results()
    assert time.monotonic() - started < scaled(5)
    timer.join()
    ours.close()


def test_a_client_that_sends_its_next_request_early_has_not_left(jobs: JobService) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"GET / HTTP/1.1")
        with (
            opened(jobs, caller=Caller(principal=principals.ME, client_socket=ours), seconds=0.2) as pending,
            pytest.raises(WaitTimeout),
        ):
            pending.results()
        assert ours.recv(3) == b"GET", "the server can still read its bytes"


def test_requests_beyond_the_limit_are_rejected(waiters: Waiters) -> None:
    with contextlib.ExitStack() as requests:
        for _ in range(4):
            requests.enter_context(waiters.admit_request())
        with pytest.raises(TooManyWaiters):
            requests.enter_context(waiters.admit_request())
    with waiters.admit_request():
        pass


def test_a_follower_gets_every_event_in_order_to_the_end(jobs: JobService, store: JobStore, publisher: Bench) -> None:
    job = admit(store)
    running = publisher.claim()

    def publish_all() -> None:
        for number in range(50):
            publisher.say(running, f"{number} ")
            time.sleep(0.002)
        publisher.say(running, "", end=True)

    publishing = threading.Thread(target=publish_all)
    publishing.start()
    events = [entry.event for entry in events_of(jobs.follow(job))]
    publishing.join()
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "".join(
        f"{number} " for number in range(50)
    )
    assert [event.type for event in (events[0], events[-1])] == ["started", "end"]


def test_an_event_of_a_notification_goes_to_the_waiters_that_have_read_all_before_it(
    waiters: Waiters, redis_client: RedisClient
) -> None:
    message = 'j 5-0 6-0 delta {"text": "as the notification has it"}'
    up_to_date, behind, ending = (Waiter("j", position, queue.SimpleQueue()) for position in ("5-0", FROM_START, None))
    for waiter in (up_to_date, behind, ending):
        waiters.add(waiter)
    redis_client.xadd(keys.events("j"), {"type": "started", "data": '{"attempt": 1}'}, id="5-0")
    redis_client.xadd(keys.events("j"), {"type": "delta", "data": '{"text": "as Redis has it"}'}, id="6-0")
    for _ in range(2):  # a reading of the whole stream may also bring it
        waiters._deliver(message, redis_client)
    assert _events(up_to_date) == [Delta("as the notification has it")], "without reading Redis"
    assert _events(behind) == [Started(1), Delta("as Redis has it")]
    assert ending.inbox.empty()


def _events(waiter: Waiter) -> list[Event]:
    items = [waiter.inbox.get_nowait()[1] for _ in range(waiter.inbox.qsize())]
    return [item.event for item in items if isinstance(item, EventEntry)]


def test_a_follower_gets_at_once_that_its_job_has_been_started(jobs: JobService, store: JobStore) -> None:
    earlier = admit(store)
    jobs.wait(earlier, 0.3)  # everything has been read again; the next reading is seconds away
    store.cancel(earlier.id)
    with opened(jobs, with_events=True) as pending:
        assert store.claim("worker-1") is not None
        item = pending.next_event(2.0)
    assert item is not None and item[1].event == Started(1)


def test_following_resumes_after_any_event(jobs: JobService, store: JobStore, publisher: Bench) -> None:
    job = admit(store)
    running = jobs.follow(job)
    finish(publisher, job.id)
    entries = events_of(running)
    ended = store.read(job.id)
    for at, entry in enumerate(entries):
        assert events_of(jobs.follow(ended, entry.id)) == entries[at + 1 :]
    assert events_of(jobs.follow(ended)) == entries


def test_a_job_can_be_waited_for_and_followed_while_redis_has_no_memory_left(
    jobs: JobService, store: JobStore, publisher: Bench, redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 0.1)
    job = admit(store)
    redis_client.execute_command("CONFIG", "SET", "maxmemory", 1)
    try:
        assert jobs.wait(job, 0.05).status is Status.QUEUED
        followed = jobs.follow(job)
    finally:
        redis_client.execute_command("CONFIG", "SET", "maxmemory", 0)
    finish(publisher, job.id)
    assert isinstance(events_of(followed)[-1].event, End)
    followed.close()


def test_a_second_process_is_notified_of_a_job_that_the_first_one_made(
    jobs: JobService,
    redis_url: str,
    redis_client: RedisClient,
    store: JobStore,
    publisher: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 60.0)
    waiters = Waiters(redis_url, redis_client, store, max_requests=4)
    second = JobService(jobs.config, redis_client, store, waiters, jobs.estimate, jobs.adapters)
    with opened(jobs) as pending, second.follow(pending.jobs[0]) as followed:  # type: ignore[union-attr]
        until(lambda: redis.Redis.from_url(redis_url).pubsub_numsub(waiters.channel)[0][1])
        time.sleep(0.2)  # it has read everything once
        finish(publisher, pending.jobs[0].id)
        assert [job.status for job in pending.results()] == [Status.SUCCEEDED]
        assert isinstance(events_of(followed)[-1].event, End)
    waiters.close()


def test_a_silent_job_gives_no_event_in_time(jobs: JobService, waiters: Waiters, store: JobStore) -> None:
    following = jobs.follow(admit(store))
    assert [following.next_event(0.02), following.next_event(0.02)] == [None, None]
    following.close()
    assert waiters._requests == 0 and not waiters._waiting


def test_a_shutdown_ends_all_waits_with_the_path_of_the_job(
    jobs: JobService, waiters: Waiters, store: JobStore
) -> None:
    following = jobs.follow(admit(store))
    with opened(jobs) as pending:
        timer = threading.Timer(0.1, waiters.shut_down)
        timer.start()
        with pytest.raises(ShuttingDown) as waited:
            pending.results()
        with pytest.raises(ShuttingDown) as followed:
            events_of(following)
        timer.join()
        waited_for, followed_job = pending.jobs[0].id, following.jobs[0].id
    assert [waited.value.location, followed.value.location] == [f"/jobs/{waited_for}", f"/jobs/{followed_job}/events"]
    assert {store.read(job_id).status for job_id in (waited_for, followed_job)} == {Status.QUEUED}


def fail_worker(client: RedisClient) -> None:
    broken = WorkerInfo(id="w", model="m", family="test", state=WorkerState.FAILED, detail="there is no such file")
    announce(client, broken)
    withdraw(client, "m")


@pytest.fixture
def quick_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.05)


def test_clients_that_wait_learn_that_the_last_worker_has_failed_and_their_jobs_stay(
    jobs: JobService, store: JobStore, redis_client: RedisClient, quick_reads: None
) -> None:
    following = jobs.follow(admit(store))
    with jobs.begin_waiting(ME, OnDisconnect.CANCEL, with_events=False) as pending:
        pending.submit([request()])
        fail_worker(redis_client)
        with pytest.raises(NoWorker, match=r"the worker failed \(there is no such file\).*read it at /jobs/") as waited:
            pending.results()
    with pytest.raises(NoWorker, match="read it at /jobs/") as followed:
        events_of(following)
    following.close()
    waited_for, followed_job = pending.jobs[0].id, following.jobs[0].id
    assert [waited.value.location, followed.value.location] == [f"/jobs/{waited_for}", f"/jobs/{followed_job}"]
    assert {store.read(job_id).status for job_id in (waited_for, followed_job)} == {Status.QUEUED}
    assert jobs.wait(store.read(waited_for), 60).status is Status.QUEUED, "sooner than asked for"


def test_a_job_for_later_and_one_that_runs_are_waited_for_though_a_worker_has_failed(
    jobs: JobService, store: JobStore, publisher: Bench, redis_client: RedisClient, quick_reads: None
) -> None:
    running = jobs.follow(admit(store))
    later = jobs.follow(store.admit(replace(request(), not_before=time.time() + 60), ME.principal))
    publisher.claim()
    assert running.next_event(5) is not None, "it has started"
    fail_worker(redis_client)
    assert [running.next_event(0.3), later.next_event(0.1)] == [None, None]
    running.close()
    later.close()


def test_a_worker_that_is_killed_is_waited_for(
    jobs: JobService, store: JobStore, redis_client: RedisClient, quick_reads: None
) -> None:
    following = jobs.follow(admit(store))
    redis_client.delete(keys.alive("m"))
    assert following.next_event(0.3) is None
    following.close()


def test_a_shutdown_cancels_nothing(jobs: JobService, waiters: Waiters, store: JobStore) -> None:
    with jobs.begin_waiting(ME, None, with_events=False) as pending:
        pending.submit([request()])
        waiters.shut_down()
    assert store.read(pending.jobs[0].id).status is Status.QUEUED


@pytest.mark.parametrize(
    ("on_disconnect", "key", "status"),
    [
        (None, None, Status.CANCELED),
        (None, "key", Status.QUEUED),
        (OnDisconnect.CANCEL, "key", Status.CANCELED),
        (OnDisconnect.CONTINUE, None, Status.QUEUED),
    ],
)
def test_a_request_that_ends_early_cancels_its_job_unless_its_client_may_come_back(
    jobs: JobService,
    store: JobStore,
    redis_client: RedisClient,
    on_disconnect: OnDisconnect | None,
    key: str | None,
    status: Status,
) -> None:
    serve(redis_client, 4)
    with jobs.begin_waiting(
        Caller(principal=principals.ME, idempotency_key=key), on_disconnect, with_events=True
    ) as pending:
        pending.submit([request(), request()])
    assert {store.read(job.id).status for job in pending.jobs} == {status}
    assert len({job.id for job in pending.jobs}) == 2


@pytest.mark.parametrize("with_events", [False, True])
def test_the_jobs_of_one_request_take_half_of_the_slots_and_the_next_is_made_when_one_ends(
    jobs: JobService, store: JobStore, redis_client: RedisClient, publisher: Bench, with_events: bool
) -> None:
    serve(redis_client, 5)
    with jobs.begin_waiting(ME, None, with_events=with_events) as pending:
        pending.submit([request(stream=with_events) for _ in range(5)])
        assert len({job.id for job in pending.jobs}) == 5, "all have their ids"
        for ended in range(5):
            unfinished = {job.id for job in store.list_jobs("me") if not job.status.is_final}
            assert unfinished == {job.id for job in pending.jobs[ended : ended + 2]}
            finish(publisher, pending.jobs[ended].id)
            assert next_end_of(pending, with_events=with_events) == ended
        assert pending.has_ended


def next_end_of(pending: PendingJobs, *, with_events: bool) -> int:
    """Return the index of the next job that ends."""
    deadline = time.monotonic() + scaled(5)
    while time.monotonic() < deadline:
        item = pending.next_event(1) if with_events else pending.next_end(1)
        if item is not None and (isinstance(item[1], Job) or isinstance(item[1].event, End)):
            return item[0]
    raise AssertionError("no job ends")


def test_a_job_that_has_ended_may_expire_while_the_others_of_its_request_run(
    jobs: JobService,
    store: JobStore,
    redis_client: RedisClient,
    publisher: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.05)
    serve(redis_client, 4)
    with jobs.begin_waiting(ME, None, with_events=False) as pending:
        pending.submit([request(), request()])
        finish(publisher, pending.jobs[0].id)
        assert next_end_of(pending, with_events=False) == 0
        assert store.delete(store.read(pending.jobs[0].id))
        for _ in range(20):  # the missing record is noticed meanwhile
            assert pending.next_end(0.1) is None
        finish(publisher, pending.jobs[1].id)
        assert next_end_of(pending, with_events=False) == 1


@pytest.mark.parametrize("on_disconnect", list(OnDisconnect))
def test_the_jobs_left_of_a_request_that_ends_early_are_made_for_a_client_that_comes_back(
    jobs: JobService, store: JobStore, redis_client: RedisClient, on_disconnect: OnDisconnect
) -> None:
    serve(redis_client, 2)
    with jobs.begin_waiting(ME, on_disconnect, with_events=False) as pending:
        pending.submit([request() for _ in range(3)])
        assert len(store.list_jobs("me")) == 1
    assert len(store.list_jobs("me")) == (3 if on_disconnect is OnDisconnect.CONTINUE else 1)


def test_a_job_that_is_rejected_while_others_run_is_made_when_one_of_them_ends(
    jobs: JobService, store: JobStore, publisher: Bench, redis_client: RedisClient
) -> None:
    serve(redis_client, 4)
    with jobs.begin_waiting(ME, None, with_events=False) as pending:
        pending.submit([request() for _ in range(4)])
        redis_client.delete(keys.alive("m"))
        finish(publisher, pending.jobs[0].id)
        assert next_end_of(pending, with_events=False) == 0
        assert len(store.list_jobs("me")) == 2, "no worker is there, so none is made"
        redis_client.set(keys.alive("m"), "1", ex=60)
        finish(publisher, pending.jobs[1].id)
        assert next_end_of(pending, with_events=False) == 1
        assert len(store.list_jobs("me")) == 4
        redis_client.delete(keys.alive("m"))


def test_a_process_that_shuts_down_takes_no_more_requests(waiters: Waiters) -> None:
    waiters.shut_down()
    with pytest.raises(ShuttingDown, match="send the request again") as refused, waiters.admit_request():
        pass
    assert refused.value.location is None
    assert waiters._requests == 0


def test_events_that_came_before_the_shutdown_are_not_lost(
    jobs: JobService, waiters: Waiters, store: JobStore, publisher: Bench
) -> None:
    with opened(jobs, with_events=True) as pending:
        job_id = pending.jobs[0].id
        finish(publisher, job_id)
        until(lambda: store.read(job_id).status.is_final)
        waiters._read_all(waiters._redis)
        waiters.shut_down()
        assert [entry.event.type for entry in events_of(pending)] == ["started", "delta", "end"]
