"""The broker's lists against the queue: messages that got lost, and messages that nobody needs any more."""

import time

from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.order import make_celery
from app.jobs.reaper import JOBS_PER_TURN, MISSING_SECONDS
from tests.app.jobs.scene import MODEL, Scene


def test_a_lost_message_is_sent_again_after_a_while_and_not_before(scene: Scene) -> None:
    lost, waiting = scene.admit(), scene.admit()
    assert scene.fetch() == lost.id  # by a consumer that dies
    assert scene.turn() == 0
    scene.seconds_pass(MISSING_SECONDS - 1)
    assert scene.turn() == 0
    assert scene.line() == [waiting.id]
    scene.seconds_pass(1)
    assert scene.turn() == 1
    assert scene.line() == [lost.id, waiting.id]
    assert scene.turn() == 0
    assert scene.raw.exists(keys.missing(MODEL)) == 0


def test_a_message_that_is_back_in_time_is_not_missed(scene: Scene) -> None:
    job = scene.admit()
    message = scene.raw.rpop(scene.queues.list_key(Priority.NORMAL))
    scene.turn()
    scene.raw.rpush(scene.queues.list_key(Priority.NORMAL), str(message))
    scene.turn()
    scene.fetch()
    scene.seconds_pass(MISSING_SECONDS)
    assert scene.turn() == 0
    scene.seconds_pass(MISSING_SECONDS)
    assert scene.turn() == 1
    assert scene.line() == [job.id]


def test_all_messages_of_a_model_can_be_lost(scene: Scene) -> None:
    jobs = [scene.admit(priority=priority) for priority in Priority for _ in range(3)]
    scene.raw.delete(*(scene.queues.list_key(priority) for priority in Priority))
    scene.turn()
    scene.seconds_pass(MISSING_SECONDS)
    assert scene.turn() == len(jobs)
    assert [job_id for priority in Priority for job_id in scene.line(priority)] == [job.id for job in jobs]


def test_a_message_that_kombu_puts_back_is_known_and_its_job_is_not_forgotten_at_the_end(scene: Scene) -> None:
    """Kombu puts what a leaving consumer still got at the end of the line."""
    first, second = scene.admit(), scene.admit()
    celery = make_celery(scene.url, MODEL)
    with celery.connection_for_read() as connection:
        queue = celery.conf.task_queues[0](connection.default_channel)
        message = queue.get(no_ack=False)
        assert message is not None and message.properties["correlation_id"] == first.id
        message.requeue()
    assert scene.line() == [second.id, first.id]
    scene.turn()
    scene.seconds_pass(MISSING_SECONDS)
    scene.turn()
    assert scene.line() == [first.id, second.id, first.id]
    for job_id in (scene.fetch(), scene.fetch()):
        scene.claimed(job_id)
    assert scene.turn() == 0
    assert scene.line() == []


def test_messages_of_canceled_jobs_leave_the_line_when_they_are_next(scene: Scene) -> None:
    jobs = [scene.admit() for _ in range(3)]
    for job in jobs[:2]:
        scene.store.cancel(job.id)
    assert scene.turn() == 0
    assert scene.line() == [jobs[2].id]
    scene.store.cancel(jobs[2].id)
    assert scene.turn() == 0
    assert scene.line() == []


def test_messages_of_canceled_jobs_do_not_pile_up_behind_one_that_waits(scene: Scene) -> None:
    first = scene.admit()
    for _ in range(3 * JOBS_PER_TURN):
        scene.store.cancel(scene.admit().id)
    last = scene.admit()
    deadline = time.monotonic() + 20
    while len(scene.line()) > JOBS_PER_TURN + 2:
        assert time.monotonic() < deadline
        scene.turn()
        time.sleep(0.2)  # each second looks at another part of the line
    assert (scene.line()[0], scene.line()[-1]) == (first.id, last.id)


def test_a_message_that_is_not_ours_is_left_alone_and_nothing_is_concluded_from_it(scene: Scene) -> None:
    name = scene.queues.list_key(Priority.NORMAL)
    celery = make_celery(scene.url, MODEL)
    celery.send_task("somebody.elses", priority=Priority.NORMAL.step)
    (foreign,) = scene.raw.lrange(name, 0, -1)
    for message in (foreign, "no JSON at all", ""):
        scene.raw.delete(name)
        job = scene.admit()
        scene.raw.rpush(name, message)
        for _ in range(2):
            assert scene.turn() == 0
            scene.seconds_pass(MISSING_SECONDS)
        assert scene.raw.lrange(name, 0, -1) == [scene.queues.message(job.id, Priority.NORMAL), message]
        scene.store.cancel(job.id)


def test_a_place_in_line_without_a_record_is_dropped(scene: Scene) -> None:
    job = scene.admit()
    scene.raw.delete(keys.job(job.id))
    scene.fetch()
    assert scene.turn() == 0
    assert scene.queue() == []
