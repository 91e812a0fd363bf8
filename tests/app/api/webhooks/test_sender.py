"""Webhooks over a real Valkey to a real HTTP server: each end is reported, and a bad receiver delays no other."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from app.api.webhooks import sender as sender_module
from app.api.webhooks.queue import WebhookQueue
from app.api.webhooks.receivers import SENDERS, SENDERS_PER_ADDRESS, SENDERS_PER_OWNER
from app.api.webhooks.sender import WebhookSender
from app.jobs import keys
from app.jobs.job import ANONYMOUS, JobRequest, Kind, Webhook, WebhookState, WebhookStatus
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import JobStore
from tests.app.api.webhooks.receiver import SECRET, Receiver, listening, silence, status
from tests.principals import ME, key_named
from tests.waiting import scaled, until

MakeSender = Callable[..., WebhookSender]
REQUEST = JobRequest(kind=Kind.GENERATE, prompt="a secret prompt")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "RETRY_SECONDS", (0.05, 0.05, 0.05))
    monkeypatch.setattr(sender_module, "LOOK_SECONDS", 0.02)


@pytest.fixture
def make_sender(redis_url: str) -> Iterator[MakeSender]:
    made: list[WebhookSender] = []

    def make(*, allow_private: bool = True) -> WebhookSender:
        queue = WebhookQueue(connect(redis_url), "m")
        made.append(WebhookSender(queue, SECRET, allow_private=allow_private))
        made[-1].start()
        return made[-1]

    yield make
    for sender in made:
        sender.stop()


def end_job(store: JobStore, url: str, owner: str = ANONYMOUS, **options: object) -> str:
    """Admit a job with a webhook and cancel it."""
    webhook = Webhook(url=url, **options)  # type: ignore[arg-type]
    job_id = store.admit(replace(REQUEST, webhook=webhook), key_named(owner)).id
    store.cancel(job_id)
    return job_id


def due(client: RedisClient) -> list[str]:
    return client.zrange(keys.webhooks("m"), 0, -1)


def waiting(client: RedisClient) -> int:
    return client.zcard(keys.webhooks("m"))


def test_the_end_of_a_job_is_reported_with_a_signature_and_the_job_object(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    job_id = end_job(store, receiver.url)
    make_sender()
    until(lambda: receiver.requests and not waiting(redis_client))
    path, headers, body = receiver.requests[0]
    event = receiver.verified()
    assert (event["type"], event["data"]["id"], event["data"]["status"]) == ("job.canceled", job_id, "canceled")
    assert event["timestamp"] == event["data"]["completed_at"]
    assert (path, headers["webhook-id"], headers["Content-Type"]) == ("/hook?a=b", f"msg_{job_id}", "application/json")
    assert b"a secret prompt" not in body
    assert not redis_client.exists(keys.webhook(job_id))


def test_only_the_requested_ends_are_reported(store: JobStore, redis_client: RedisClient) -> None:
    end_job(store, "http://127.0.0.1:1/", events=("job.succeeded",))
    assert waiting(redis_client) == 0


def test_a_job_without_a_webhook_leaves_nothing_to_send(store: JobStore, redis_client: RedisClient) -> None:
    job_id = store.admit(REQUEST, ME).id
    store.cancel(job_id)
    assert (waiting(redis_client), redis_client.exists(keys.webhook(job_id))) == (0, 0)


def test_the_end_of_a_forgotten_job_is_reported_too(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    job_id = end_job(store, receiver.url)
    assert store.delete(store.read(job_id))
    make_sender()
    until(lambda: receiver.requests)
    assert receiver.verified()["data"]["id"] == job_id


def test_a_failed_attempt_is_made_again_with_the_same_id(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    receiver.answers += [status(500), status(503, Retry_After="0")]
    job_id = end_job(store, receiver.url)
    make_sender()
    until(lambda: len(receiver.requests) == 3 and not waiting(redis_client))
    assert receiver.ids == [f"msg_{job_id}"] * 3
    assert [receiver.verified(index) for index in range(3)] == [receiver.verified()] * 3


def test_a_receiver_may_ask_for_a_pause(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    receiver.answers.append(status(429, Retry_After="60"))
    end_job(store, receiver.url)
    make_sender()
    until(lambda: receiver.requests)
    job_id = receiver.ids[0].removeprefix("msg_")

    def due_in() -> float:
        return float(redis_client.execute_command("ZSCORE", keys.webhooks("m"), job_id)) - time.time()

    until(lambda: 50 < due_in() < 61)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(("answers", "attempts"), [([500] * 9, 4), ([410], 1)])
def test_a_webhook_that_is_given_up_is_logged(
    store: JobStore,
    redis_client: RedisClient,
    make_sender: MakeSender,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    answers: list[int],
    attempts: int,
) -> None:
    receiver.answers += [status(code) for code in answers]
    job_id = end_job(store, receiver.url)
    make_sender()
    until(lambda: receiver.requests and not waiting(redis_client))
    assert len(receiver.requests) == attempts
    (line,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert job_id in line and "given up" in line and str(answers[0]) in line


def test_a_redirect_is_not_followed(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    with listening() as other:
        receiver.answers += [status(302, Location=other.url)] * 9
        end_job(store, receiver.url)
        make_sender()
        until(lambda: receiver.requests and not waiting(redis_client))
        assert other.requests == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]", "0"])
def test_a_private_address_is_refused_also_behind_a_name(
    store: JobStore,
    redis_client: RedisClient,
    make_sender: MakeSender,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    host: str,
) -> None:
    end_job(store, receiver.url.replace("127.0.0.1", host))
    make_sender(allow_private=False)
    until(lambda: not waiting(redis_client))
    assert receiver.requests == []
    assert "webhooks.allow_private" in caplog.text


def test_two_senders_report_each_end_once(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    ids = {f"msg_{end_job(store, receiver.url)}" for _ in range(40)}
    for _ in range(2):
        make_sender()
    until(lambda: not waiting(redis_client))
    assert (set(receiver.ids), len(receiver.ids)) == (ids, 40)


def test_a_silent_receiver_delays_no_other(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    released = threading.Event()
    with listening() as silent:
        silent.answers += [silence(released)] * 100
        for _ in range(30):
            end_job(store, silent.url)
        make_sender()
        until(lambda: len(silent.requests) == 4)
        seconds = 0.0
        for count in range(1, 4):
            end_job(store, receiver.url)
            seconds += until(lambda count=count: len(receiver.requests) == count)  # type: ignore[misc]
        assert seconds < scaled(5)
        assert len(silent.requests) == 4
        released.set()


@pytest.fixture
def many_silent(store: JobStore, request: pytest.FixtureRequest) -> Iterator[Callable[[], int]]:
    """Jobs of one owner whose webhooks go to as many silent receivers as there are senders, all at one address.

    Returns what counts how many of them are being sent.
    """
    released = threading.Event()
    with contextlib.ExitStack() as opened:
        silent = [opened.enter_context(listening()) for _ in range(SENDERS)]
        for one in silent:
            one.answers += [silence(released)] * 2
            end_job(store, one.url, owner=request.param)
        yield lambda: sum(len(one.requests) for one in silent)
        released.set()


@pytest.mark.parametrize("many_silent", ["them"], indirect=True)
def test_an_owner_with_many_silent_receivers_delays_no_other_owner(
    store: JobStore, make_sender: MakeSender, receiver: Receiver, many_silent: Callable[[], int]
) -> None:
    make_sender()
    until(lambda: many_silent() == SENDERS_PER_OWNER)
    end_job(store, receiver.url)
    assert until(lambda: receiver.requests) < scaled(5)
    assert many_silent() == SENDERS_PER_OWNER


@pytest.mark.parametrize("many_silent", [ANONYMOUS], indirect=True)
def test_many_names_of_one_address_get_only_some_of_the_senders(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, many_silent: Callable[[], int]
) -> None:
    make_sender()
    until(lambda: many_silent() == SENDERS_PER_ADDRESS)
    time.sleep(0.2)
    assert many_silent() == SENDERS_PER_ADDRESS
    assert waiting(redis_client) == SENDERS, "the others are sent later"
    failures = [redis_client.hget(keys.webhook(job_id), "webhook_failures") or "0" for job_id in due(redis_client)]
    assert set(failures) == {"0"}, "to wait is no failed attempt"


def test_a_receiver_that_is_not_there_is_left_alone_for_a_while(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        end_job(store, "http://127.0.0.1:1/")
    make_sender()
    time.sleep(0.5)
    assert waiting(redis_client) == 5


def test_what_a_sender_has_not_settled_is_sent_again_when_its_lease_is_over(
    store: JobStore, redis_client: RedisClient, redis_url: str, make_sender: MakeSender, receiver: Receiver
) -> None:
    job_id = end_job(store, receiver.url)
    due = WebhookQueue(connect(redis_url), "m")
    (lost,) = due.take(5)
    assert due.take(5) == []
    with redis.Redis.from_url(redis_url) as raw:
        raw.zadd(keys.webhooks("m"), {job_id: 1})
    make_sender()
    until(lambda: receiver.ids == [f"msg_{job_id}"])
    until(lambda: not waiting(redis_client))
    due.retry(lost, 0.0, 1, "late")
    due.give_up(lost, 1, "late")
    assert waiting(redis_client) == 0, "a sender that has lost its lease changes nothing"
    assert status_of(store, job_id) == WebhookStatus(state=WebhookState.SENT, tries=1)


def status_of(store: JobStore, job_id: str) -> WebhookStatus:
    status = store.read(job_id).webhook_status
    assert status is not None
    return status


def test_the_job_says_that_its_webhook_has_arrived_and_at_which_try(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    receiver.answers.append(status(500))
    job_id = end_job(store, receiver.url)
    queued = status_of(store, job_id)
    assert queued == WebhookStatus(
        state=WebhookState.WAITING, tries=0, next_try_at=pytest.approx(time.time(), abs=scaled(5))
    )
    seconds_to_live = redis_client.execute_command("TTL", keys.job(job_id))
    make_sender()
    until(lambda: not waiting(redis_client))
    assert status_of(store, job_id) == WebhookStatus(state=WebhookState.SENT, tries=2)
    assert 0 < redis_client.execute_command("TTL", keys.job(job_id)) <= seconds_to_live


def test_while_a_webhook_waits_its_job_has_the_tries_so_far_the_last_error_and_the_next_time(
    store: JobStore, make_sender: MakeSender, receiver: Receiver
) -> None:
    receiver.answers.append(status(429, Retry_After="60"))
    job_id = end_job(store, receiver.url)
    make_sender()
    until(lambda: status_of(store, job_id).tries == 1)
    seen = status_of(store, job_id)
    assert (seen.state, seen.error) == (WebhookState.WAITING, "HTTP 429")
    assert seen.next_try_at == pytest.approx(time.time() + 60, abs=scaled(5))


@pytest.mark.parametrize(("answers", "tries"), [([500] * 9, 4), ([410], 1)])
def test_the_job_says_that_its_webhook_is_given_up_and_why(
    store: JobStore,
    redis_client: RedisClient,
    make_sender: MakeSender,
    receiver: Receiver,
    answers: list[int],
    tries: int,
) -> None:
    receiver.answers += [status(code) for code in answers]
    job_id = end_job(store, receiver.url)
    make_sender()
    until(lambda: not waiting(redis_client))
    given_up = WebhookStatus(state=WebhookState.GIVEN_UP, tries=tries, error=f"HTTP {answers[0]}")
    assert status_of(store, job_id) == given_up


def test_a_webhook_that_was_not_sent_for_days_is_given_up_in_its_job_too(
    store: JobStore, redis_client: RedisClient, redis_url: str
) -> None:
    job_id = end_job(store, "http://127.0.0.1:1/")
    redis_client.delete(keys.webhook(job_id))  # as Redis does three days later
    assert WebhookQueue(connect(redis_url), "m").take(5) == []
    assert waiting(redis_client) == 0
    expected = WebhookStatus(state=WebhookState.GIVEN_UP, tries=0, error="it was not sent in time")
    assert status_of(store, job_id) == expected


def test_a_webhook_is_settled_in_a_redis_without_memory(
    store: JobStore, redis_client: RedisClient, redis_url: str, receiver: Receiver
) -> None:
    job_id = end_job(store, receiver.url)
    queue = WebhookQueue(connect(redis_url), "m")
    (delivery,) = queue.take(5)
    redis_client.execute_command("CONFIG", "SET", "maxmemory", 1)
    try:
        queue.sent(delivery)
    finally:
        redis_client.execute_command("CONFIG", "SET", "maxmemory", 0)
    assert status_of(store, job_id).state is WebhookState.SENT


def test_a_job_has_no_status_of_a_webhook_before_its_end_and_of_an_end_that_is_not_reported(store: JobStore) -> None:
    webhook = Webhook(url="http://127.0.0.1:1/", events=("job.succeeded",))
    job_id = store.admit(replace(REQUEST, webhook=webhook), ME).id
    assert store.read(job_id).webhook_status is None
    store.cancel(job_id)
    assert store.read(job_id).webhook_status is None


def test_a_forgotten_job_does_not_come_back_with_what_became_of_its_webhook(
    store: JobStore, redis_client: RedisClient, make_sender: MakeSender, receiver: Receiver
) -> None:
    receiver.answers.append(status(500))
    job_id = end_job(store, receiver.url)
    assert store.delete(store.read(job_id))
    make_sender()
    until(lambda: len(receiver.requests) == 2 and not waiting(redis_client))
    assert not redis_client.exists(keys.job(job_id))
