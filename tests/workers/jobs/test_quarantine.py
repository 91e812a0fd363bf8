"""One suspect at a time, the worker's other jobs held or gone."""

from collections.abc import Callable

import pytest

from app.jobs import keys
from app.jobs.job import JobRequest, Kind
from app.jobs.redis_client import RedisClient, connect
from app.jobs.store import Claim
from workers.jobs.quarantine import TRIAL_TOKENS, Quarantine


class Scene:
    """A stage that writes down what happens, and trials whose other threads are this one."""

    def __init__(self, client: RedisClient, *, max_attempts: int = 3) -> None:
        self.client = client
        self.log: list[str] = []
        self.company = 0
        self.tokens: int | None = None
        self.pass_: Callable[[], None] = lambda: None
        self.trials = Quarantine(
            client,
            "worker-1",
            max_attempts=max_attempts,
            begin=lambda job_id: self.log.append(f"begin {job_id}"),
            spawn=lambda action: action(),
            others=lambda: self.company,
            on_quiet=lambda: self.log.append("quiet"),
        )
        self.trials.stage = self

    def hold_others(self, sequence_id: str, *, tokens: int | None, on_passed: Callable[[], None]) -> None:
        self.log.append(f"hold for {sequence_id}")
        self.tokens, self.pass_ = tokens, on_passed

    def add(self, claim: Claim) -> None:
        self.trials.expect()
        self.trials.add(claim)

    def release_others(self) -> None:
        self.log.append("release")

    @property
    def marked(self) -> str | None:
        return self.client.get(keys.trial("worker-1"))


def suspect(job_id: str, losses: int = 1) -> Claim:
    request = JobRequest(kind=Kind.GENERATE, prompt="p")
    return Claim(
        owner="me",
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
    scene.company = 5
    scene.add(suspect("a"))
    assert scene.log == ["hold for a", "begin a"]
    assert (scene.marked, scene.tokens, scene.trials.count) == ("a", TRIAL_TOKENS, 1)


def test_a_suspect_counts_from_its_claim(scene: Scene) -> None:
    scene.trials.expect()
    assert (scene.trials.count, scene.log) == (1, [])
    scene.trials.add(suspect("a"))
    assert scene.trials.count == 1


def test_one_that_has_passed_joins_the_others_and_the_next_is_tried(scene: Scene) -> None:
    scene.add(suspect("a"))
    scene.add(suspect("b"))
    assert scene.log == ["hold for a", "begin a"]
    scene.pass_()
    assert scene.log[2:] == ["release", "hold for b", "begin b"]
    assert scene.marked == "b"
    scene.trials.ended("a")
    assert (scene.marked, scene.trials.count) == ("b", 1), "the end of a is not the end of b's trial"
    scene.trials.ended("b")
    assert scene.log[5:] == ["release", "quiet"]
    assert (scene.marked, scene.trials.count) == (None, 0)


def test_the_end_of_a_job_just_after_it_has_passed_ends_its_trial_once(redis_client: RedisClient) -> None:
    scene, later = Scene(redis_client), list[Callable[[], None]]()
    scene.add(suspect("a"))
    scene.trials._spawn = later.append
    scene.pass_()
    scene.trials.ended("a")
    scene.add(suspect("b"))
    for action in later:
        action()
    assert len(later) == 2, "one end, and the beginning of the next"
    assert scene.log == ["hold for a", "begin a", "release", "hold for b", "begin b"]


@pytest.mark.parametrize(("losses", "max_attempts"), [(2, 3), (2, 5), (4, 5), (1, 2)])
def test_whoever_may_fail_next_runs_in_solitude_to_its_end(
    redis_client: RedisClient, losses: int, max_attempts: int
) -> None:
    scene = Scene(redis_client, max_attempts=max_attempts)
    scene.company = 1
    scene.add(suspect("a", losses))
    assert (scene.log, scene.trials.count) == ([], 1)
    scene.company = 0
    scene.trials.ended("the last of the others")
    assert scene.log == ["hold for a", "begin a"]
    assert scene.tokens is None


def test_a_suspect_that_leaves_before_its_trial_is_not_tried(scene: Scene) -> None:
    scene.add(suspect("a"))
    scene.add(suspect("b"))
    scene.trials.ended("b")
    scene.trials.ended("a")
    assert scene.log == ["hold for a", "begin a", "release", "quiet"]


def test_a_trial_takes_place_also_while_redis_is_away() -> None:
    scene = Scene(connect("redis://127.0.0.1:1/0", retries=0))
    scene.add(suspect("a"))
    scene.trials.ended("a")
    assert scene.log == ["hold for a", "begin a", "release", "quiet"]
