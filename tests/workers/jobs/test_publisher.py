"""The publisher against a real Valkey: what it writes, when, and what it must not write."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from app.errors import EngineFailed
from app.jobs import keys
from app.jobs.events import FROM_START, Delta, End, EventEntry, read_events, read_published
from app.jobs.job import FinishReason, JobRequest, Kind, Status, TokenLogprob, Usage
from app.jobs.notifications import Notification, notifications_in
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim, JobStore
from tests.lost_worker import lose_worker
from tests.repeating_client import RepeatingClient
from tests.workers.batching.scripted_engine import prompt
from workers.batching.sequence import BatchSequence, Outcome, Update, job_error
from workers.jobs import publisher
from workers.jobs.publisher import Publisher

DONE = Outcome(status=Status.SUCCEEDED, finish_reason=FinishReason.LENGTH)


class Bench:
    """A publisher, and jobs to publish for."""

    def __init__(self, client: RedisClient, store: JobStore) -> None:
        self.fenced: list[str] = []
        self.client, self.store = client, store
        self.publisher = Publisher(
            client, model="m", ttl_seconds=60, on_fenced=self.fenced.append, give_back=store.hand_back
        )

    def begin(self, *, followed: bool = False) -> tuple[Claim, BatchSequence, threading.Event]:
        job = self.store.admit(JobRequest(kind=Kind.GENERATE, prompt="p", stream=followed), "me")
        claim = self.store.claim("worker-1")
        assert claim is not None
        return claim, BatchSequence(job.id, prompt("text")), self.publisher.open(claim)

    def say(self, sequence: BatchSequence, text: str, *, end: bool = False) -> None:
        """One step that brought one token."""
        sequence.generated.append(len(sequence.generated))
        tokens = sequence.generated[-1:]
        self.publisher.publish([Update(sequence=sequence, text=text, tokens=tokens, outcome=DONE if end else None)])

    def events(self, job_id: str) -> list[EventEntry]:
        return read_events(self.client, [(job_id, FROM_START)])[0]

    def texts(self, job_id: str) -> list[str]:
        return [entry.event.text for entry in self.events(job_id) if isinstance(entry.event, Delta)]


@pytest.fixture
def bench(redis_client: RedisClient, store: JobStore) -> Bench:
    return Bench(redis_client, store)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_followed_job_is_written_at_every_step(bench: Bench) -> None:
    claim, sequence, closed = bench.begin(followed=True)
    for count, word in enumerate(["one ", "two ", "three"], start=1):
        bench.say(sequence, word)
        eventually(lambda count=count: len(bench.texts(claim.job_id)) == count)  # type: ignore[misc]
    bench.say(sequence, "!", end=True)
    assert closed.wait(5)
    assert bench.texts(claim.job_id) == ["one ", "two ", "three", "!"]
    end = bench.events(claim.job_id)[-1].event
    assert isinstance(end, End) and end.status is Status.SUCCEEDED


def test_a_job_nobody_follows_is_written_seldom_and_whole(bench: Bench) -> None:
    claim, sequence, closed = bench.begin()
    for word in ["one ", "two "]:
        bench.say(sequence, word)
    bench.say(sequence, "three", end=True)
    assert closed.wait(5)
    assert "".join(bench.texts(claim.job_id)) == "one two three"
    job = bench.store.read(claim.job_id)
    assert job.output is not None and job.output.text == "one two three"
    assert job.usage == Usage(prompt_tokens=3, completion_tokens=3)
    written = read_published(bench.client, claim.job_id)
    assert (written.tokens, written.text) == ([0, 1, 2], "one two three")


def test_a_follower_who_comes_later_gets_each_step_from_then_on(bench: Bench) -> None:
    claim, sequence, _ = bench.begin()
    bench.publisher.follow(claim.job_id)
    bench.say(sequence, "one ")
    eventually(lambda: bench.texts(claim.job_id) == ["one "])


def test_a_follower_who_comes_between_two_steps_gets_what_has_been_gathered(bench: Bench) -> None:
    claim, sequence, _ = bench.begin()
    bench.say(sequence, "one ")
    bench.say(sequence, "two ")
    bench.publisher.follow(claim.job_id)
    eventually(lambda: "".join(bench.texts(claim.job_id)) == "one two ")


def test_what_was_gathered_is_handed_back_with_its_job(bench: Bench) -> None:
    claim, sequence, closed = bench.begin()
    bench.say(sequence, "one ")
    bench.say(sequence, "two ")
    bench.publisher.hand_back_all()
    assert closed.wait(5)
    assert read_published(bench.client, claim.job_id).text == "one two "


def test_the_record_holds_outcome_metrics_and_expiry(bench: Bench, redis_url: str) -> None:
    claim, sequence, closed = bench.begin()
    sequence.first_token_at = sequence.submitted_at + 0.25
    sequence.ended_at = sequence.first_token_at + 0.5
    entry = TokenLogprob(token="x", logprob=-0.5, top={"x": -0.5, "y": -1.0})
    sequence.generated += [1, 2]
    bench.publisher.publish([Update(sequence=sequence, text="xy", tokens=[1, 2], logprobs=[entry], outcome=DONE)])
    assert closed.wait(5)
    job = bench.store.read(claim.job_id)
    assert (job.status, job.completed_at is not None) == (Status.SUCCEEDED, True)
    assert job.output is not None and job.output.logprobs == [entry]
    assert job.metrics is not None
    assert job.metrics.time_to_first_token_seconds == pytest.approx(claim.queue_seconds + 0.25, abs=1e-3)
    assert job.metrics.tokens_per_second == pytest.approx(2.0)
    with redis.Redis.from_url(redis_url) as raw:
        assert 0 < raw.ttl(keys.job(claim.job_id)) <= 60
        assert raw.zcard(keys.running("m")) == 0


def test_a_worker_that_lost_its_lease_cannot_write_one_byte_more(bench: Bench, redis_url: str) -> None:
    claim, sequence, closed = bench.begin(followed=True)
    lose_worker(redis_url, claim.job_id)
    second = bench.store.claim("worker-2")
    assert second is not None
    bench.say(sequence, "late")
    eventually(lambda: bench.fenced == [claim.job_id])
    assert not closed.is_set(), "its sequence still runs here"
    bench.say(sequence, "later", end=True)
    assert closed.wait(5)
    assert bench.texts(claim.job_id) == []
    assert bench.store.read(claim.job_id).status is Status.PROCESSING


def test_a_failure_keeps_its_code_and_the_partial_text(bench: Bench) -> None:
    claim, sequence, closed = bench.begin()
    bench.say(sequence, "half")
    bench.publisher.publish([sequence.fail(EngineFailed("the engine failed"))])
    assert closed.wait(5)
    job = bench.store.read(claim.job_id)
    assert job.status is Status.FAILED and job.error is not None and job.error.code == "engine_error"
    assert job.output is not None and job.output.text == "half"


def test_jobs_that_never_were_sequences_end_too(bench: Bench) -> None:
    embedded, _, embedded_closed = bench.begin()
    failed, _, failed_closed = bench.begin()
    bench.publisher.finish(embedded.job_id, embeddings=[[0.6, 0.8]], usage=Usage(prompt_tokens=2))
    bench.publisher.finish(failed.job_id, error=job_error(ValueError("a defect")))
    assert embedded_closed.wait(5) and failed_closed.wait(5)
    job = bench.store.read(embedded.job_id)
    assert job.output is not None and job.output.embeddings == [[0.6, 0.8]]
    assert bench.store.read(failed.job_id).status is Status.FAILED


def test_a_restarted_redis_that_forgot_the_script_is_told_again(bench: Bench, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.script_flush()
    claim, sequence, closed = bench.begin()
    with redis.Redis.from_url(redis_url) as raw:
        raw.script_flush()
    bench.say(sequence, "text", end=True)
    assert closed.wait(5)
    assert bench.texts(claim.job_id) == ["text"]


def test_connections_cut_again_and_again_lose_and_repeat_nothing(bench: Bench, redis_url: str) -> None:
    claim, sequence, closed = bench.begin(followed=True)
    with redis.Redis.from_url(redis_url) as raw:
        for number in range(200):
            bench.say(sequence, f"{number} ")
            if number % 20 == 0:
                raw.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.001)
    bench.say(sequence, "end", end=True)
    assert closed.wait(20)
    expected = "".join(f"{number} " for number in range(200)) + "end"
    assert "".join(bench.texts(claim.job_id)) == expected
    assert bench.store.read(claim.job_id).output.text == expected  # type: ignore[union-attr]


def test_what_redis_has_forgotten_is_written_again(bench: Bench, redis_url: str) -> None:
    """Its host went down before the last second was on its disk."""
    claim, sequence, closed = bench.begin(followed=True)
    for count, word in enumerate(["one ", "two "], start=1):
        bench.say(sequence, word)
        eventually(lambda count=count: len(bench.texts(claim.job_id)) == count)  # type: ignore[misc]
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        raw.xdel(keys.events(claim.job_id), bench.events(claim.job_id)[-1].id)
        raw.hset(keys.job(claim.job_id), "published", 1)
    bench.say(sequence, "three", end=True)
    assert closed.wait(5)
    assert bench.texts(claim.job_id) == ["one ", "two ", "three"]
    assert bench.fenced == []


def test_an_end_whose_confirmation_was_lost_is_not_taken_for_another_workers(
    redis_client: RedisClient, store: JobStore
) -> None:
    bench = Bench(RepeatingClient(redis_client, times=2), store)
    claim, sequence, closed = bench.begin()
    bench.say(sequence, "one", end=True)
    assert closed.wait(5)
    assert bench.fenced == []
    assert bench.texts(claim.job_id) == ["one"]


@contextlib.contextmanager
def hints_heard(redis_url: str) -> Iterator[Callable[[], list[Notification]]]:
    """Reads the next hint that is published in this block; nothing when none comes."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        hints = raw.pubsub(ignore_subscribe_messages=True)
        hints.subscribe(keys.NOTIFICATIONS_CHANNEL)
        hints.get_message(timeout=1)

        def heard() -> list[Notification]:
            message = hints.get_message(timeout=0.5)
            return [] if message is None else list(notifications_in(message["data"]))

        yield heard
        hints.close()


def test_one_hint_per_step_carries_the_text_of_all_jobs_that_are_followed(bench: Bench, redis_url: str) -> None:
    (first, one, _), (second, two, _) = (bench.begin(followed=True) for _ in range(2))
    _, unfollowed, _ = bench.begin()
    started = [bench.events(claim.job_id)[-1].id for claim in (first, second)]
    with hints_heard(redis_url) as heard:
        bench.publisher.publish([Update(sequence=each, text="x", tokens=[1]) for each in (one, two, unfollowed)])
        lines = heard()
        assert heard() == []
    written = [bench.events(claim.job_id)[-1] for claim in (first, second)]
    assert [line.job_id for line in lines] == [first.job_id, second.job_id]
    assert [line.event() for line in lines] == list(zip(started, written, strict=True))


def test_a_hint_that_would_be_long_only_names_the_job(bench: Bench, redis_url: str) -> None:
    claim, sequence, _ = bench.begin(followed=True)
    with hints_heard(redis_url) as heard:
        bench.say(sequence, "x" * 20_000)
        (line,) = heard()
    assert (line.job_id, line.event(), line.record()) == (claim.job_id, None, None)
    assert bench.texts(claim.job_id) == ["x" * 20_000]


def test_what_is_sent_again_is_hinted_once(redis_client: RedisClient, store: JobStore, redis_url: str) -> None:
    bench = Bench(RepeatingClient(redis_client, times=2), store)
    _, sequence, _ = bench.begin(followed=True)
    with hints_heard(redis_url) as heard:
        bench.say(sequence, "one")
        assert len(heard()) == 1
        assert heard() == []


def test_a_step_in_which_jobs_end_tells_their_records_in_the_same_hint(bench: Bench, redis_url: str) -> None:
    (first, one, closed), (second, two, _) = (bench.begin(followed=True) for _ in range(2))
    for claim, sequence in ((first, one), (second, two)):
        bench.say(sequence, "first ")
        eventually(lambda claim=claim: bench.texts(claim.job_id) == ["first "])  # type: ignore[misc]
    with hints_heard(redis_url) as heard:
        ended = Update(sequence=one, text="x", tokens=[1], outcome=DONE)
        bench.publisher.publish([ended, Update(sequence=two, text="y", tokens=[1])])
        lines = heard()
    assert closed.wait(5)
    assert [line.job_id for line in lines] == [first.job_id, second.job_id]
    assert lines[0].record() == bench.store.read(first.job_id)
    assert lines[1].event() is not None


def test_a_first_text_is_told_before_the_texts_of_those_that_go_on(bench: Bench, redis_url: str) -> None:
    (first, one, _), (second, two, _) = (bench.begin(followed=True) for _ in range(2))
    bench.say(one, "one ")
    eventually(lambda: bench.texts(first.job_id) == ["one "])
    with hints_heard(redis_url) as heard:
        bench.publisher.publish([Update(sequence=each, text="x", tokens=[1]) for each in (one, two)])
        told = [[line.job_id for line in heard()] for _ in range(2)]
    assert told == [[second.job_id], [first.job_id]]


def test_the_loop_waits_for_a_first_text_that_is_followed_and_for_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "FIRST_TEXT_SECONDS", 0.2)
    claim, followed, _ = bench.begin(followed=True)
    _, alone, _ = bench.begin()

    def seconds(sequence: BatchSequence) -> float:
        started = time.monotonic()
        bench.say(sequence, "word ")
        return time.monotonic() - started

    assert seconds(alone) < 0.1
    assert seconds(followed) >= 0.2
    eventually(lambda: len(bench.texts(claim.job_id)) == 1)
    assert seconds(followed) < 0.1
