"""The reaper against a real Valkey: what happens to jobs that lost their worker or waited too long."""

import json
import signal
import threading
import time

import pytest

from app.jobs import keys
from app.jobs.events import End
from app.jobs.job import FinishReason, Priority, Status, Usage
from app.jobs.reaper import EVENTS_PER_TURN, GRACE_SECONDS, OUTAGE_SECONDS, TURN_SECONDS, Reaper
from app.jobs.record import RECORD_FIELDS
from app.jobs.store import LEASE_SECONDS
from tests.app.jobs.scene import MAX_ATTEMPTS, MODEL, TTL_SECONDS, Scene
from tests.lost_worker import end_lease
from tests.valkey import Valkey
from tests.waiting import scaled

# --- leases


def test_a_job_whose_lease_has_expired_continues_with_another_worker(scene: Scene) -> None:
    first = scene.running()
    scene.publish(first, "half ", "a ")
    scene.raw.hset(keys.job(first.job_id), "claimed_at", f"{time.time() - 60:.6f}")
    scene.raw.hset(keys.job(first.job_id), "lease_until", f"{time.time() - 1:.6f}")
    scene.raw.zadd(keys.running(MODEL), {first.job_id: time.time() - 1})
    assert scene.turn() == 1
    assert scene.store.read(first.job_id).status is Status.QUEUED
    second = scene.next_claim("worker-2")
    assert second.job_id == first.job_id
    assert (second.attempt, second.losses, second.published_tokens) == (2, 1, 2)
    assert second.token > first.token
    assert second.started_at == first.started_at
    assert second.ran_seconds == pytest.approx(60 - 1 - LEASE_SECONDS, abs=1)  # to the last sign of its worker


def test_a_job_whose_lease_was_renewed_is_left_alone_even_if_the_index_is_stale(scene: Scene) -> None:
    claim = scene.running()
    scene.raw.zadd(keys.running(MODEL), {claim.job_id: 1})
    assert scene.turn() == 0
    assert scene.store.read(claim.job_id).status is Status.PROCESSING
    assert scene.raw.zscore(keys.running(MODEL), claim.job_id) == pytest.approx(time.time() + LEASE_SECONDS, abs=5)


def test_a_job_that_took_the_last_worker_it_may_has_failed_and_keeps_its_text(scene: Scene) -> None:
    claim = scene.running()
    job_id = claim.job_id
    for attempt in range(MAX_ATTEMPTS):
        scene.publish(claim, f"{attempt} ")
        scene.lose(claim)
        if attempt < MAX_ATTEMPTS - 1:
            claim = scene.claimed(job_id)
    job = scene.store.read(job_id)
    assert job.status is Status.FAILED
    assert job.error is not None and job.error.code == "worker_lost"
    assert job.output is not None
    assert (job.output.text, job.output.finish_reason) == ("0 1 2 ", FinishReason.ERROR)
    (*_, end) = scene.events(job_id)
    assert isinstance(end, End) and end.error is not None
    assert (end.status, end.error.code) == (Status.FAILED, "worker_lost")
    assert scene.queue() == []


def test_texts_of_every_script_survive_the_reapers_json(scene: Scene) -> None:
    words = ['quote " ', "back\\slash/ ", "\x00\x1f\x7f\n", "ümläut ", "日本 ", "\U0001f600", "</script>"]
    claim = scene.running()
    scene.publish(claim, *words)
    scene.store.cancel(claim.job_id)
    scene.lose(claim)
    job = scene.store.read(claim.job_id)
    assert job.output is not None and job.output.text == "".join(words)


def test_a_bystander_of_a_trial_is_not_counted_as_lost(scene: Scene) -> None:
    on_trial, bystander = scene.running(), scene.running()
    scene.raw.set(keys.trial("worker-1"), on_trial.job_id)
    scene.lose(on_trial, bystander)
    assert scene.claimed(on_trial.job_id).losses == 1
    assert scene.claimed(bystander.job_id).losses == 0


def test_a_bystander_keeps_its_place_though_it_was_lost_twice_before(scene: Scene) -> None:
    bystander = scene.running()
    for _ in range(MAX_ATTEMPTS - 1):
        scene.lose(bystander)
        bystander = scene.claimed(bystander.job_id)
    waiting = scene.admit()
    scene.raw.set(keys.trial("worker-1"), "another job")
    scene.lose(bystander)
    assert scene.queue() == [bystander.job_id, waiting.id]


def test_a_job_whose_worker_died_before_it_read_the_cancellation_is_canceled(scene: Scene) -> None:
    claim = scene.running()
    scene.publish(claim, "so far")
    assert scene.store.cancel(claim.job_id) is Status.PROCESSING
    scene.lose(claim)
    job = scene.store.read(claim.job_id)
    assert job.status is Status.CANCELED
    assert job.output is not None
    assert (job.output.text, job.output.finish_reason) == ("so far", FinishReason.CANCELED)
    assert scene.events(claim.job_id)[-1] == End(Status.CANCELED, FinishReason.CANCELED, Usage(completion_tokens=1))


# --- order


def test_jobs_lost_once_come_first_in_their_old_order(scene: Scene) -> None:
    claims = [scene.running(f"worker-{number}") for number in range(4)]
    waiting = scene.admit()
    for seconds_ago, claim in zip([2, 4, 1, 3], claims, strict=True):
        scene.raw.hset(keys.job(claim.job_id), "lease_until", f"{time.time() - seconds_ago:.6f}")
        scene.raw.zadd(keys.running(MODEL), {claim.job_id: time.time() - seconds_ago})
    scene.turn()
    in_order = [*(claim.job_id for claim in claims), waiting.id]
    assert scene.queue() == in_order


def test_the_order_of_an_earlier_release_is_taken_over(scene: Scene) -> None:
    """It was one sorted set of places, and the records had no tenant."""
    waiting = [scene.admit(priority=priority) for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)]
    places = {job.id: scene.raw.hget(keys.job(job.id), "place") for job in waiting}
    for job in waiting:
        scene.raw.hdel(keys.job(job.id), "tenant", "weight", "key_name", "label")
    scene.raw.delete(
        *scene.raw.keys("llm:queue:*"), *(key(MODEL) for key in (keys.waiting, keys.tenants, keys.doorbells))
    )
    scene.raw.zadd(f"llm:queued:{MODEL}", places)
    scene.turn()
    assert [scene.next_claim().job_id for _ in waiting] == [job.id for job in reversed(waiting)]
    assert not scene.raw.exists(f"llm:queued:{MODEL}")


def test_a_job_lost_later_goes_behind_those_that_came_before_it(scene: Scene) -> None:
    claims = [scene.running() for _ in range(3)]
    waiting = scene.admit()
    for number in (1, 0, 2):
        scene.lose(claims[number])
    assert scene.queue() == [*(claim.job_id for claim in claims), waiting.id]


def test_a_job_lost_twice_goes_to_the_back_of_its_priority(scene: Scene) -> None:
    lost = [scene.running(), scene.running()]
    scene.lose(*lost)
    lost = [scene.next_claim() for _ in lost]
    waiting, low = scene.admit(), scene.admit(priority=Priority.LOW)
    scene.lose(*reversed(lost))
    assert scene.queue() == [waiting.id, *(claim.job_id for claim in lost), low.id]


def test_places_keep_their_microseconds_in_every_priority(scene: Scene) -> None:
    for priority in Priority:
        claim = scene.running(priority=priority)
        admitted_at = scene.raw.hget(keys.job(claim.job_id), "place")
        scene.store.hand_back(claim)
        assert f"{scene.raw.zscore(keys.queue('me', MODEL), claim.job_id):.0f}" == admitted_at
        assert int(str(admitted_at)) % 3 * 10**15 < 2**53
        scene.lose(scene.claimed(claim.job_id))
        assert scene.raw.hget(keys.job(claim.job_id), "place") == admitted_at


# --- waiting, and what is kept


def test_a_job_that_has_waited_too_long_expires_without_any_worker(scene: Scene) -> None:
    job, patient = scene.admit(expires_in_seconds=0.05), scene.admit(expires_in_seconds=100)
    scene.raw.delete(keys.alive(MODEL))
    time.sleep(0.06)
    scene.turn()
    expired = scene.store.read(job.id)
    assert (expired.status, expired.output, expired.completed_at is not None) == (Status.EXPIRED, None, True)
    assert scene.events(job.id) == [End(Status.EXPIRED, usage=Usage())]
    assert scene.queue() == scene.raw.zrange(keys.expiring(MODEL), 0, -1) == [patient.id]


def test_a_job_that_has_started_once_does_not_expire(scene: Scene) -> None:
    lost, handed = scene.running(expires_in_seconds=0.2), scene.running(expires_in_seconds=0.2)
    time.sleep(0.21)
    scene.lose(lost)
    scene.store.hand_back(handed)
    scene.turn()
    assert [scene.store.read(claim.job_id).status for claim in (lost, handed)] == [Status.QUEUED] * 2
    assert scene.claimed(lost.job_id) and scene.claimed(handed.job_id)


def test_the_owners_index_forgets_jobs_with_their_records(scene: Scene) -> None:
    gone, kept = scene.admit(ttl_seconds=1), scene.admit()
    for job in (gone, kept):
        scene.store.cancel(job.id)
    scene.turn()
    assert scene.raw.zcard(keys.jobs_of("me")) == 2
    deadline = time.monotonic() + scaled(5)
    while scene.raw.zcard(keys.jobs_of("me")) == 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        scene.turn()
    assert scene.raw.exists(keys.job(gone.id)) == 0
    assert scene.raw.zrange(keys.jobs_of("me"), 0, -1) == [kept.id]
    assert scene.raw.zrange(keys.ended(MODEL), 0, -1) == [f"{kept.id} me"]


def test_a_thousand_entries_of_a_second_are_forgotten_in_one_turn(scene: Scene) -> None:
    owners = ["me", "", "you and I", "a\nb"]
    entries = [(f"job-{number}", owners[number % 4]) for number in range(1000)]
    for job_id, owner in entries:
        scene.raw.zadd(keys.jobs_of(owner), {job_id: 1})
    scene.raw.zadd(keys.ended(MODEL), {f"{job_id} {owner}": 1 for job_id, owner in entries})
    scene.turn()
    assert scene.raw.exists(keys.ended(MODEL), *(keys.jobs_of(owner) for owner in owners)) == 0


def test_a_notification_is_sent_when_the_reaper_or_a_cancellation_ends_a_job(scene: Scene) -> None:
    lost, canceled, dead, expired = (
        scene.running(), scene.admit(), scene.running(), scene.admit(expires_in_seconds=0.01),
    )  # fmt: skip
    for job_id in (lost.job_id, canceled.id, dead.job_id, expired.id):
        scene.store.follow(job_id, "api", with_events=False)
    scene.store.cancel(lost.job_id)
    time.sleep(0.02)
    notifications = scene.raw.pubsub(ignore_subscribe_messages=True)
    notifications.subscribe("api")
    notifications.get_message(timeout=1)
    scene.lose(lost)
    scene.store.cancel(canceled.id)
    end_lease(scene.url, dead.job_id)
    scene.store.cancel(dead.job_id)
    received = [message["data"] for _ in range(4) if (message := notifications.get_message(timeout=scaled(2)))]
    notifications.close()
    assert received == [lost.job_id, expired.id, canceled.id, dead.job_id]


# --- turns


def test_two_reapers_in_one_turn_do_the_work_once(scene: Scene) -> None:
    lost = scene.running()
    end_lease(scene.url, lost.job_id)
    others = [Reaper(scene.client, model=MODEL, ttl_seconds=60, max_attempts=3) for _ in range(4)]
    sent: list[int] = []
    threads = [threading.Thread(target=lambda r=reaper: sent.append(r.reap())) for reaper in others]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == [0, 0, 0, 1]
    assert (scene.queue(), scene.doorbells()) == ([lost.job_id], 1)


def test_turns_follow_each_other_after_a_second(scene: Scene) -> None:
    claim = scene.running()
    scene.reaper.reap()
    end_lease(scene.url, claim.job_id)
    assert scene.reaper.reap() == 0
    time.sleep(TURN_SECONDS)
    assert scene.reaper.reap() == 1


def test_an_idle_service_writes_nothing(scene: Scene) -> None:
    scene.reaper.reap()
    before = scene.raw.info("persistence")["rdb_changes_since_last_save"]
    scene.reaper.reap()
    assert scene.raw.info("persistence")["rdb_changes_since_last_save"] == before


def test_the_first_job_after_an_idle_time_is_no_sign_of_an_outage(scene: Scene) -> None:
    scene.raw.set(keys.reaper(MODEL), str(time.time() - 3600))
    scene.running()
    later = scene.admit(not_before=time.time() + 1000)
    scene.raw.zadd(keys.scheduled(MODEL), {later.id: time.time() - 1})
    scene.reaper.reap()
    assert scene.queue() == [later.id]


def test_an_outage_just_after_the_first_job_began_costs_it_nothing(scene: Scene) -> None:
    scene.reaper.reap()
    claim = scene.running()
    end_lease(scene.url, claim.job_id)
    scene.raw.set(keys.reaper(MODEL), str(time.time() - 3600))  # the last turn with a job
    assert scene.reaper.reap() == 0
    assert scene.queue() == []


def test_after_a_while_without_turns_the_workers_come_first(scene: Scene) -> None:
    """As after an outage of Redis, or when the machine slept."""
    claim = scene.running()
    end_lease(scene.url, claim.job_id)
    due_at = time.time() - OUTAGE_SECONDS - 0.1
    scene.raw.set(keys.reaper(MODEL), str(due_at))
    assert scene.reaper.reap() == 0
    assert scene.reaper.reap() == 0
    next_turn = float(scene.raw.get(keys.reaper(MODEL)) or 0)
    assert next_turn == pytest.approx(time.time() + GRACE_SECONDS, abs=1)
    scene.raw.set(keys.reaper(MODEL), str(time.time() - 0.1))  # the pause is over
    assert scene.reaper.reap() == 1


def test_a_clock_that_was_set_back_does_not_stop_the_reaper(scene: Scene) -> None:
    claim = scene.running()
    end_lease(scene.url, claim.job_id)
    scene.raw.set(keys.reaper(MODEL), str(time.time() + 3600))
    assert scene.reaper.reap() == 1


def test_a_redis_that_was_stopped_for_longer_than_the_leases_costs_no_worker_its_jobs(
    scene: Scene, valkey: Valkey
) -> None:
    """The calls that the reaper made meanwhile are still in Redis' socket, and Redis reads them first."""
    claim = scene.running()
    scene.raw.hset(keys.job(claim.job_id), "lease_until", f"{time.time() + 0.5:.6f}")
    scene.raw.zadd(keys.running(MODEL), {claim.job_id: time.time() + 0.5})
    scene.reaper.reap()
    assert valkey.process is not None
    valkey.process.send_signal(signal.SIGSTOP)
    try:
        scene.reaper.start()
        time.sleep(OUTAGE_SECONDS + TURN_SECONDS + 0.2)
    finally:
        valkey.process.send_signal(signal.SIGCONT)
    time.sleep(0.5 * TURN_SECONDS)
    answer = scene.renew(claim)
    scene.reaper.stop()
    assert answer[0] == "ok"


def test_long_texts_of_lost_jobs_are_read_over_several_turns(scene: Scene) -> None:
    """One turn must be short, as Redis does nothing else meanwhile."""
    claims = [scene.running() for _ in range(4)]
    with scene.raw.pipeline(transaction=False) as pipe:
        for claim in claims:
            scene.store.cancel(claim.job_id)
            for number in range(EVENTS_PER_TURN // 2):
                delta = {"type": "delta", "data": '{"text":"word "}', "tokens": f"[{number}]"}
                pipe.xadd(keys.events(claim.job_id), delta)
        pipe.execute()
    final = []
    for _ in range(2):
        scene.lose(*(claim for claim in claims if not scene.store.read(claim.job_id).status.is_final))
        final.append(sum(scene.store.read(claim.job_id).status.is_final for claim in claims))
    assert final == [2, 4]


def test_a_turn_over_a_thousand_waiting_and_32_running_jobs_is_short(scene: Scene) -> None:
    for _ in range(32):
        scene.running()
    for number in range(1000):
        scene.admit(priority=list(Priority)[number % 3])
    scene.turn()
    scene.raw.config_set("slowlog-log-slower-than", 0)
    try:
        scene.raw.slowlog_reset()
        for _ in range(20):
            scene.turn()
        entries = scene.raw.slowlog_get(128)
    finally:
        scene.raw.config_set("slowlog-log-slower-than", 10_000)
    microseconds = [entry["duration"] for entry in entries if entry["command"].startswith(b"EVALSHA")]
    assert sorted(microseconds)[len(microseconds) // 2] < scaled(1000)


def test_what_the_reaper_writes_is_a_record_like_any_other(scene: Scene) -> None:
    claim = scene.running()
    scene.publish(claim, "x")
    scene.store.cancel(claim.job_id)
    scene.lose(claim)
    assert 0 < scene.raw.ttl(keys.job(claim.job_id)) <= TTL_SECONDS
    assert 0 < scene.raw.ttl(keys.events(claim.job_id)) <= TTL_SECONDS
    record = dict(zip(RECORD_FIELDS, scene.client.hmget(keys.job(claim.job_id), RECORD_FIELDS), strict=True))
    assert json.loads(str(record["output"])) == {"text": "x", "finish_reason": "canceled"}
