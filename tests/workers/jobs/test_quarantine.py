"""Suspect jobs run one at a time, while the worker's other jobs are held or have ended."""

import contextlib

import pytest
import redis

from app.jobs import keys
from app.jobs.job import JobRequest, Kind
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import Claim
from workers.engines.runner import RunnerJob
from workers.jobs.quarantine import TRIAL_TOKENS, Quarantine
from workers.jobs.running_jobs import RunningJob, RunningJobs


class Scene:
    """Stands in for the runner and the worker, and logs what happens to the jobs."""

    def __init__(self, client: RedisClient, *, max_attempts: int = 3) -> None:
        self.client = client
        self.log: list[str] = []
        self.tokens: int | None = None
        self.names: list[tuple[str, str | None]] = []  # what happened, and whom Redis named then
        self.jobs = RunningJobs()
        self.quarantine = Quarantine(client, "worker-1", self.jobs, self, max_attempts=max_attempts)
        self.quarantine.runner = self  # type: ignore[assignment]

    def pause_all(self) -> None:
        self._note("pause")

    def _note(self, event: str) -> None:
        with contextlib.suppress(redis.RedisError):
            self.names.append((event, self.marked))

    def submit_alone(self, job: RunnerJob, *, tokens: int | None) -> None:
        self._note(f"run {job.id}")
        self.log.append(f"run {job.id} alone")
        self.tokens = tokens

    def release_others(self) -> None:
        self.log.append("release")
        self._note("release")

    def make_room(self) -> None:
        self.log.append("room")

    def add(self, claim: Claim, *, is_ready: bool = True) -> RunningJob:
        job = RunningJob(claim)
        self.jobs.add(job)
        if is_ready:
            job.load_published(None)
            self.advance()
        return job

    def end(self, job: RunningJob) -> None:
        self.jobs.remove(job)
        self.advance()

    def pass_(self, job: RunningJob) -> None:
        job.passed_trial = True
        self.advance()

    def advance(self) -> None:
        self.quarantine.advance()
        self.quarantine._thread.submit(lambda: None).result(5)  # its one thread is idle again

    @property
    def marked(self) -> str | None:
        return self.client.get(keys.trial("worker-1"))


def suspect(job_id: str, losses: int = 1) -> Claim:
    request = JobRequest(kind=Kind.GENERATE, prompt="p")
    return Claim(
        owner="me",
        tenant="me",
        job_id=job_id,
        request=request,
        token=1,
        attempt=losses + 1,
        created_at=0.0,
        started_at=0.0,
        followed=False,
        losses=losses,
    )


@pytest.fixture
def scene(redis_client: RedisClient) -> Scene:
    return Scene(redis_client)


def test_a_suspect_is_named_before_it_begins_and_the_others_are_held(scene: Scene) -> None:
    for number in range(5):
        scene.add(suspect(f"other {number}", losses=0))
    scene.add(suspect("a"))
    assert scene.log == ["run a alone"]
    assert (scene.marked, scene.tokens, scene.quarantine.is_empty) == ("a", TRIAL_TOKENS, False)


def test_redis_names_a_suspect_only_while_no_other_job_steps(scene: Scene) -> None:
    a = scene.add(suspect("a"))
    scene.pass_(a)
    scene.add(suspect("b"))
    assert scene.names == [("pause", None), ("run a", "a"), ("release", None), ("pause", None), ("run b", "b")]


def test_a_suspect_counts_from_its_claim(scene: Scene) -> None:
    job = scene.add(suspect("a"), is_ready=False)
    scene.advance()
    assert (scene.quarantine.is_empty, scene.log) == (False, [])
    job.load_published(None)
    scene.advance()
    assert (scene.quarantine.is_empty, scene.log) == (False, ["run a alone"])


def test_a_suspect_that_has_passed_joins_the_others_and_the_next_is_tried(scene: Scene) -> None:
    a, b = scene.add(suspect("a")), scene.add(suspect("b"))
    assert scene.log == ["run a alone"]
    scene.pass_(a)
    assert scene.log[1:] == ["release", "run b alone"]
    assert scene.marked == "b"
    scene.end(a)
    assert (scene.marked, scene.quarantine.is_empty) == ("b", False), "the end of a is not the end of b's trial"
    scene.end(b)
    assert scene.log[3:] == ["release", "room"]
    assert (scene.marked, scene.quarantine.is_empty) == (None, True)


def test_the_end_of_a_job_just_after_it_has_passed_ends_its_trial_once(scene: Scene) -> None:
    a = scene.add(suspect("a"))
    a.passed_trial = True
    scene.jobs.remove(a)
    scene.quarantine.advance()
    scene.quarantine.advance()
    scene.advance()
    scene.add(suspect("b"))
    assert scene.log == ["run a alone", "release", "room", "run b alone"]


@pytest.mark.parametrize(("losses", "max_attempts"), [(2, 3), (2, 5), (4, 5), (1, 2)])
def test_a_suspect_close_to_its_last_attempt_runs_by_itself_to_its_end(
    redis_client: RedisClient, losses: int, max_attempts: int
) -> None:
    scene = Scene(redis_client, max_attempts=max_attempts)
    other = scene.add(suspect("the last of the others", losses=0))
    scene.add(suspect("a", losses))
    assert (scene.log, scene.quarantine.is_empty) == ([], False)
    scene.end(other)
    assert scene.log == ["run a alone"]
    assert scene.tokens is None


def test_a_suspect_that_leaves_before_its_trial_is_not_tried(scene: Scene) -> None:
    a, b = scene.add(suspect("a")), scene.add(suspect("b"))
    scene.end(b)
    scene.end(a)
    assert scene.log == ["run a alone", "release", "room"]


def test_a_trial_also_runs_while_redis_cannot_be_reached() -> None:
    scene = Scene(connect("redis://127.0.0.1:1/0", retries=0))
    scene.end(scene.add(suspect("a")))
    assert scene.log == ["run a alone", "release", "room"]
