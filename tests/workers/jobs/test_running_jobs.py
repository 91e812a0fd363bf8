"""The registry of running jobs: what it counts, and how a job's output is merged and numbered."""

import threading

from app.jobs.events import Delta, End, Published
from app.jobs.job import FinishReason, JobRequest, Kind, Status, Usage
from app.jobs.store import Claim
from workers.engines.runner import Outcome
from workers.jobs.running_jobs import RunningJob, RunningJobs

REQUEST = JobRequest(kind=Kind.GENERATE, prompt="p")


def running(job_id: str = "1", token: int = 1, *, followed: bool = True) -> RunningJob:
    claim = Claim(
        job_id=job_id,
        owner="me",
        tenant="me",
        request=REQUEST,
        token=token,
        attempt=token,
        created_at=0,
        started_at=0,
        followed=followed,
    )
    return RunningJob(claim)


def test_waiting_ends_with_the_last_job_or_at_the_timeout() -> None:
    jobs, job = RunningJobs(), running()
    jobs.add(job)
    assert not jobs.wait_until_empty(0.01)
    threading.Timer(0.02, jobs.remove, [job]).start()
    assert jobs.wait_until_empty(5)


def test_a_job_that_a_thread_is_about_to_claim_counts() -> None:
    jobs, thread = RunningJobs(), threading.current_thread()
    jobs.begin_claim(thread)
    assert (len(jobs), jobs.is_claiming, list(jobs)) == (1, True, [])
    assert not jobs.wait_until_empty(0.01)
    jobs.end_claim(thread)
    assert jobs.wait_until_empty(0.01)


def test_of_two_attempts_at_a_job_the_latest_is_returned() -> None:
    jobs, lost, new = RunningJobs(), running(token=1), running(token=2)
    jobs.add(lost)
    jobs.add(new)
    assert jobs.get("1") is new
    assert jobs.remove(lost) == 2
    assert list(jobs) == [new]


def test_waiting_output_is_merged_into_one_delta_and_sent_unchanged_until_it_is_confirmed() -> None:
    job = running()
    for token, text in enumerate(["a", "b"]):
        job.add(Delta(text, (token,)), None)
    assert job.freeze() and job.next_write_is_first_text
    (first,) = job.writes()
    assert (first.delta, first.before) == (Delta("ab", (0, 1)), 0)
    job.add(Delta("c", (2,)), None)
    assert job.freeze()
    assert [(write.delta, write.before) for write in job.writes()] == [(first.delta, 0), (Delta("c", (2,)), 2)]
    job.confirm()
    assert not job.freeze() and job.writes() == []
    job.rewind()
    assert [(write.delta, write.before) for write in job.writes()] == [(first.delta, 0), (Delta("c", (2,)), 2)]


def test_nothing_is_added_after_the_first_outcome_which_the_last_write_carries() -> None:
    job = running(followed=False)
    job.load_published(Published((Delta("so far", (1, 2)),), first_at=None))
    job.add(Delta("", (3,)), job.canceled_outcome())
    job.add(Delta("late", (4,)), Outcome(status=Status.SUCCEEDED))
    assert job.freeze()
    (write,) = job.writes()
    assert (write.delta, write.before) == (Delta("", (3,)), 2)
    assert write.end == End(Status.CANCELED, FinishReason.CANCELED, Usage(completion_tokens=2))
