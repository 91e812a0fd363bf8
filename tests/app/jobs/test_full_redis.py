"""A Redis at its memory limit refuses a script that needs more before it begins, never in its middle."""

from collections.abc import Callable

import redis

from app.jobs import keys
from app.jobs.job import JobRequest, Kind, Status
from tests.app.jobs.scene import MODEL, Scene
from tests.lost_worker import end_lease
from tests.principals import ME


def test_a_redis_without_memory_does_a_step_whole_or_not_at_all(scene: Scene) -> None:
    running, leaving, over = (scene.running() for _ in range(3))
    queued, waiting = scene.admit(), scene.admit()
    end_lease(scene.url, over.job_id)
    request = JobRequest(kind=Kind.GENERATE, prompt="p", expires_in_seconds=100)
    refused: list[Callable[[], object]] = [
        lambda: scene.store.admit(request, ME, idempotency_key="a"),
        lambda: scene.renew(running),
        lambda: scene.publish(running, "word"),
        lambda: scene.finish(running, "word"),
        lambda: scene.store.cancel(running.job_id),
        lambda: scene.store.follow(running.job_id, "api"),
        lambda: scene.turn(),
    ]
    done: list[Callable[[], object]] = [  # their first command needs no memory
        lambda: scene.finish(running),
        lambda: scene.store.claim("worker-2"),
        lambda: scene.store.hand_back(leaving),
        lambda: scene.store.cancel(waiting.id),
        lambda: scene.store.cancel(over.job_id),
    ]
    assert [is_refused(scene, step) for step in refused] == [True] * len(refused)
    assert [is_refused(scene, step) for step in done] == [False] * len(done)
    job_ids = [running.job_id, queued.id, leaving.job_id, waiting.id, over.job_id]
    ends = [Status.SUCCEEDED, Status.PROCESSING, Status.QUEUED, Status.CANCELED, Status.CANCELED]
    assert [scene.store.read(job_id).status for job_id in job_ids] == ends
    assert scene.queue() == [leaving.job_id]
    assert scene.raw.zrange(keys.running(MODEL), 0, -1) == [queued.id]


def is_refused(scene: Scene, step: Callable[[], object]) -> bool:
    """Return whether Redis refuses the step; a refused step has changed nothing."""
    before = contents(scene.url)
    scene.raw.config_set("maxmemory", 1)
    try:
        step()
    except redis.exceptions.OutOfMemoryError:
        assert contents(scene.url) == before
        return True
    finally:
        scene.raw.config_set("maxmemory", 0)
    return False


def contents(url: str) -> dict[bytes, bytes]:
    with redis.Redis.from_url(url) as raw:
        return {name: raw.dump(name) for name in raw.scan_iter() if name != keys.reaper(MODEL).encode()}
