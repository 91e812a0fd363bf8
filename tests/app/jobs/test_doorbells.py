"""There are as many doorbells as waiting jobs, whatever happens to consumers and jobs."""

from app.jobs import keys
from app.jobs.job import Priority
from app.jobs.order import doorbell, make_celery, queue_name
from tests.app.jobs.scene import MODEL, Scene


def test_a_lost_doorbell_is_replaced_at_the_next_turn(scene: Scene) -> None:
    jobs = [scene.admit() for _ in range(2)]
    scene.raw.rpop(keys.doorbells(MODEL))  # a consumer takes it and dies
    scene.turn()
    assert (scene.doorbells(), scene.queue()) == (2, [job.id for job in jobs])


def test_all_doorbells_of_a_model_can_be_lost(scene: Scene) -> None:
    jobs = [scene.admit(priority=priority) for priority in Priority for _ in range(3)]
    scene.raw.delete(keys.doorbells(MODEL))
    scene.turn()
    assert scene.doorbells() == len(jobs)
    assert [scene.next_claim().job_id for _ in jobs] == [job.id for job in jobs]


def test_a_doorbell_too_many_is_an_empty_claim(scene: Scene) -> None:
    job = scene.admit()
    scene.raw.lpush(keys.doorbells(MODEL), doorbell(MODEL))
    assert scene.next_claim().job_id == job.id
    assert scene.store.claim("worker-2") is None


def test_doorbells_too_many_go_at_the_next_turn(scene: Scene) -> None:
    job = scene.admit()
    scene.raw.lpush(keys.doorbells(MODEL), *[doorbell(MODEL)] * 500)
    scene.turn()
    assert (scene.doorbells(), scene.queue()) == (1, [job.id])


def test_a_canceled_job_takes_a_doorbell_along(scene: Scene) -> None:
    first = scene.admit()
    for _ in range(300):
        scene.store.cancel(scene.admit().id)
    assert (scene.doorbells(), scene.queue()) == (1, [first.id])


def test_a_cancellation_leaves_the_doorbells_of_others(scene: Scene) -> None:
    """A consumer holds the doorbell of the canceled job, so the list has none to spare."""
    canceled, waiting = scene.admit(), scene.admit()
    scene.raw.rpop(keys.doorbells(MODEL))
    scene.store.cancel(canceled.id)
    assert scene.doorbells() == 1
    assert scene.next_claim().job_id == waiting.id


def test_jobs_of_a_lost_worker_come_with_doorbells(scene: Scene) -> None:
    claims = [scene.running() for _ in range(3)]
    assert scene.doorbells() == 0
    scene.lose(*claims)
    assert scene.doorbells() == 3


def test_a_job_that_is_handed_back_comes_with_a_doorbell(scene: Scene) -> None:
    claim = scene.running()
    scene.store.hand_back(claim)
    assert scene.doorbells() == 1
    assert scene.next_claim("worker-2").job_id == claim.job_id


def test_kombu_reads_a_doorbell_and_puts_it_back_as_it_was(scene: Scene) -> None:
    """A consumer that stops puts back the messages it has received and not used."""
    scene.admit()
    celery = make_celery(scene.url, MODEL)
    with celery.connection_for_read() as connection:
        queue = celery.conf.task_queues[0](connection.default_channel)
        message = queue.get(no_ack=False)
        assert message is not None and message.headers["task"] == "llm_api.claim"
        assert message.delivery_info["routing_key"] == queue_name(MODEL)
        message.requeue()
    assert scene.doorbells() == 1


def test_a_message_that_is_not_ours_only_counts_as_a_doorbell(scene: Scene) -> None:
    for message in ("no JSON at all", ""):
        scene.raw.lpush(keys.doorbells(MODEL), message)
    job = scene.admit()
    scene.turn()
    assert scene.doorbells() == 1
    scene.raw.delete(keys.doorbells(MODEL))
    scene.turn()
    assert scene.next_claim().job_id == job.id
