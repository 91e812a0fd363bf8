"""The publisher against a real Valkey: what it writes, when, and what it must not write."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from app.errors import EngineFailed
from app.jobs import keys
from app.jobs.events import Delta, End, read_published
from app.jobs.job import FinishReason, Status, TokenLogprob, Usage
from app.jobs.notifications import Notification, notifications_in
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.lost_worker import lose_worker
from tests.repeating_client import RepeatingClient
from tests.waiting import scaled
from tests.workers.jobs.publisher_bench import LISTENER, Bench, sequence_of
from workers.engines.runner import Outcome, Report, embedded, job_error
from workers.jobs import publisher
from workers.jobs.running_jobs import RunningJob


@pytest.fixture
def bench(redis_client: RedisClient, store: JobStore) -> Bench:
    return Bench(redis_client, store)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_followed_job_is_written_at_every_step(bench: Bench) -> None:
    job = bench.begin(followed=True)
    for count, word in enumerate(["one ", "two ", "three"], start=1):
        bench.say(job, word)
        eventually(lambda count=count: len(bench.texts(job.id)) == count)  # type: ignore[misc]
    bench.say(job, "!", end=True)
    assert job.closed.wait(scaled(5))
    assert bench.texts(job.id) == ["one ", "two ", "three", "!"]
    end = bench.events(job.id)[-1].event
    assert isinstance(end, End) and end.status is Status.SUCCEEDED


def test_a_job_without_followers_is_written_seldom_and_whole(bench: Bench) -> None:
    job = bench.begin()
    for word in ["one ", "two "]:
        bench.say(job, word)
    bench.say(job, "three", end=True)
    assert job.closed.wait(scaled(5))
    assert "".join(bench.texts(job.id)) == "one two three"
    record = bench.store.read(job.id)
    assert record.output is not None and record.output.text == "one two three"
    assert record.usage == Usage(prompt_tokens=3, completion_tokens=3)
    written = read_published(bench.client, job.id)
    assert (written.tokens, written.text) == ([0, 1, 2], "one two three")


def test_a_later_follower_gets_each_step_from_then_on(bench: Bench) -> None:
    job = bench.begin()
    bench.follow(job)
    bench.say(job, "one ")
    eventually(lambda: bench.texts(job.id) == ["one "])


def test_a_follower_between_two_steps_gets_the_unwritten_output_so_far(bench: Bench) -> None:
    job = bench.begin()
    bench.say(job, "one ")
    bench.say(job, "two ")
    bench.follow(job)
    eventually(lambda: "".join(bench.texts(job.id)) == "one two ")


def test_unwritten_output_is_written_when_its_job_is_handed_back(bench: Bench) -> None:
    job = bench.begin()
    bench.say(job, "one ")
    bench.say(job, "two ")
    bench.publisher.hand_back_all()
    assert job.closed.wait(scaled(5))
    assert read_published(bench.client, job.id).text == "one two "


def test_the_record_holds_outcome_metrics_and_expiry(bench: Bench, redis_url: str) -> None:
    job = bench.begin()
    sequence = sequence_of(job)
    sequence.submitted_at -= 0.75
    sequence.first_token_at = sequence.submitted_at + 0.25
    entry = TokenLogprob(token="x", logprob=-0.5, top={"x": -0.5, "y": -1.0})
    sequence.generated += [1, 2]
    outcome = sequence.end(Status.SUCCEEDED, FinishReason.LENGTH)
    bench.publisher.publish([Report(job, Delta("xy", (1, 2), (entry,)), outcome)])
    assert job.closed.wait(scaled(5))
    record = bench.store.read(job.id)
    assert (record.status, record.completed_at is not None) == (Status.SUCCEEDED, True)
    assert record.output is not None and record.output.logprobs == [entry]
    assert record.metrics is not None
    assert record.metrics.time_to_first_token_seconds == pytest.approx(job.claim.queue_seconds + 0.25, abs=1e-3)
    assert record.metrics.tokens_per_second == pytest.approx(2.0, rel=0.1)
    with redis.Redis.from_url(redis_url) as raw:
        assert 0 < raw.ttl(keys.job(job.id)) <= 60
        assert raw.zcard(keys.running("m")) == 0


def test_a_worker_that_lost_its_lease_cannot_write_one_byte_more(bench: Bench, redis_url: str) -> None:
    job = bench.begin(followed=True)
    lose_worker(redis_url, job.id)
    second = bench.store.claim("worker-2")
    assert second is not None
    bench.say(job, "late")
    eventually(lambda: bench.fenced == [job.id])
    assert not job.closed.is_set(), "its sequence still runs on this worker"
    bench.say(job, "later", end=True)
    assert job.closed.wait(scaled(5))
    assert bench.texts(job.id) == []
    assert bench.store.read(job.id).status is Status.PROCESSING


def test_a_failure_keeps_its_code_and_the_partial_text(bench: Bench) -> None:
    job = bench.begin()
    bench.say(job, "half")
    outcome = sequence_of(job).end_failed(EngineFailed("the engine failed"))
    bench.publisher.publish([Report(job, None, outcome)])
    assert job.closed.wait(scaled(5))
    record = bench.store.read(job.id)
    assert record.status is Status.FAILED and record.error is not None and record.error.code == "engine_error"
    assert record.output is not None and record.output.text == "half"


def test_jobs_that_never_were_sequences_end_too(bench: Bench) -> None:
    vectors, failed = bench.begin(), bench.begin()
    failure = Outcome(status=Status.FAILED, error=job_error(ValueError("a defect")))
    bench.publisher.publish([Report(vectors, None, embedded([([0.6, 0.8], 2)])), Report(failed, None, failure)])
    assert vectors.closed.wait(scaled(5)) and failed.closed.wait(scaled(5))
    record = bench.store.read(vectors.id)
    assert record.output is not None and record.output.embeddings == [[0.6, 0.8]]
    assert record.usage == Usage(prompt_tokens=2)
    assert bench.store.read(failed.id).status is Status.FAILED


def test_the_script_is_loaded_again_after_redis_has_lost_it(bench: Bench, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.script_flush()
    job = bench.begin()
    with redis.Redis.from_url(redis_url) as raw:
        raw.script_flush()
    bench.say(job, "text", end=True)
    assert job.closed.wait(scaled(5))
    assert bench.texts(job.id) == ["text"]


def test_connections_cut_again_and_again_lose_and_repeat_nothing(bench: Bench, redis_url: str) -> None:
    job = bench.begin(followed=True)
    with redis.Redis.from_url(redis_url) as raw:
        for number in range(200):
            bench.say(job, f"{number} ")
            if number % 20 == 0:
                raw.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.001)
    bench.say(job, "end", end=True)
    assert job.closed.wait(scaled(20))
    expected = "".join(f"{number} " for number in range(200)) + "end"
    assert "".join(bench.texts(job.id)) == expected
    assert bench.store.read(job.id).output.text == expected  # type: ignore[union-attr]


def test_output_that_redis_has_lost_is_written_again(bench: Bench, redis_url: str) -> None:
    """As after a crash of its host, before the last second of writes was on disk."""
    job = bench.begin(followed=True)
    for count, word in enumerate(["one ", "two "], start=1):
        bench.say(job, word)
        eventually(lambda count=count: len(bench.texts(job.id)) == count)  # type: ignore[misc]
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        raw.xdel(keys.events(job.id), bench.events(job.id)[-1].id)
        raw.hset(keys.job(job.id), "published", 1)
    bench.say(job, "three", end=True)
    assert job.closed.wait(scaled(5))
    assert bench.texts(job.id) == ["one ", "two ", "three"]
    assert bench.fenced == []


def test_an_end_whose_confirmation_was_lost_is_not_taken_for_another_workers(
    redis_client: RedisClient, store: JobStore
) -> None:
    bench = Bench(RepeatingClient(redis_client, times=2), store)
    job = bench.begin()
    bench.say(job, "one", end=True)
    assert job.closed.wait(scaled(5))
    assert bench.fenced == []
    assert bench.texts(job.id) == ["one"]


@contextlib.contextmanager
def notification_reader(redis_url: str) -> Iterator[Callable[[], list[Notification]]]:
    """Yield a function that returns the next notification published in this block, or an empty list."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        subscription = raw.pubsub(ignore_subscribe_messages=True)
        subscription.subscribe(LISTENER)
        subscription.get_message(timeout=scaled(1))

        def read_next() -> list[Notification]:
            message = subscription.get_message(timeout=0.5)
            return [] if message is None else list(notifications_in(message["data"]))

        yield read_next
        subscription.close()


def test_one_notification_per_step_carries_the_text_of_all_followed_jobs(bench: Bench, redis_url: str) -> None:
    first, second = (bench.begin(followed=True) for _ in range(2))
    unfollowed = bench.begin()
    started = [bench.events(job.id)[-1].id for job in (first, second)]
    with notification_reader(redis_url) as read_next:
        bench.publisher.publish([Report(each, Delta("x", (1,)), None) for each in (first, second, unfollowed)])
        lines = read_next()
        assert read_next() == []
    written = [bench.events(job.id)[-1] for job in (first, second)]
    assert [line.job_id for line in lines] == [first.id, second.id]
    assert [line.event() for line in lines] == list(zip(started, written, strict=True))


def test_a_notification_that_would_be_long_only_names_the_job(bench: Bench, redis_url: str) -> None:
    job = bench.begin(followed=True)
    with notification_reader(redis_url) as read_next:
        bench.say(job, "x" * 20_000)
        (line,) = read_next()
    assert (line.job_id, line.event(), line.record()) == (job.id, None, None)
    assert bench.texts(job.id) == ["x" * 20_000]


def test_a_repeated_write_is_notified_once(redis_client: RedisClient, store: JobStore, redis_url: str) -> None:
    bench = Bench(RepeatingClient(redis_client, times=2), store)
    job = bench.begin(followed=True)
    with notification_reader(redis_url) as read_next:
        bench.say(job, "one")
        assert len(read_next()) == 1
        assert read_next() == []


def test_a_step_in_which_a_job_ends_carries_its_record_in_the_same_notification(bench: Bench, redis_url: str) -> None:
    first, second = (bench.begin(followed=True) for _ in range(2))
    for job in (first, second):
        bench.say(job, "first ")
        eventually(lambda job=job: bench.texts(job.id) == ["first "])  # type: ignore[misc]
    with notification_reader(redis_url) as read_next:
        ended = Report(first, Delta("x", (1,)), sequence_of(first).end(Status.SUCCEEDED, FinishReason.LENGTH))
        bench.publisher.publish([ended, Report(second, Delta("y", (1,)), None)])
        lines = read_next()
    assert first.closed.wait(scaled(5))
    assert [line.job_id for line in lines] == [first.id, second.id]
    assert lines[0].record() == bench.store.read(first.id)
    assert lines[1].event() is not None


def test_a_first_text_is_published_before_the_texts_of_running_streams(bench: Bench, redis_url: str) -> None:
    first, second = (bench.begin(followed=True) for _ in range(2))
    bench.say(first, "one ")
    eventually(lambda: bench.texts(first.id) == ["one "])
    with notification_reader(redis_url) as read_next:
        bench.publisher.publish([Report(each, Delta("x", (1,)), None) for each in (first, second)])
        order = [[line.job_id for line in read_next()] for _ in range(2)]
    assert order == [[second.id], [first.id]]


def test_the_loop_waits_for_a_first_text_that_is_followed_and_for_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "FIRST_TEXT_SECONDS", 0.2)
    followed, unfollowed = bench.begin(followed=True), bench.begin()

    def seconds(job: RunningJob) -> float:
        started = time.monotonic()
        bench.say(job, "word ")
        return time.monotonic() - started

    assert seconds(unfollowed) < 0.1
    assert seconds(followed) >= 0.2
    eventually(lambda: len(bench.texts(followed.id)) == 1)
    assert seconds(followed) < 0.1
