"""A publisher without a worker, and claimed jobs that produce the output a test gives."""

from app.config.settings import Config
from app.jobs.events import FROM_START, Delta, EventEntry, read_events
from app.jobs.job import FinishReason, JobRequest, Kind, Status
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.principals import ME
from tests.workers.batching.scripted_engine import prompt
from workers.batching.sequence import BatchSequence
from workers.engines.runner import Report
from workers.jobs.publisher import Publisher
from workers.jobs.response_cache import ResponseCache
from workers.jobs.running_jobs import RunningJob, RunningJobs

LISTENER = "llm:notifications:test"
"""The channel of the process that waits for the jobs."""


class Bench:
    """A publisher and the jobs whose output it publishes. Stands in for the worker."""

    def __init__(self, client: RedisClient, store: JobStore) -> None:
        self.fenced: list[str] = []
        self.client, self.store, self.jobs = client, store, RunningJobs()
        cache = ResponseCache(client, Config(model_name="m"))
        self.publisher = Publisher(client, store, self.jobs, cache, self, model="m", ttl_seconds=60, worker_id="w")

    def cancel(self, job: RunningJob) -> None:
        self.fenced.append(job.id)

    def follow(self, job: RunningJob) -> None:
        job.followed = True
        self.publisher.wake()

    def remove(self, job: RunningJob) -> None:
        self.jobs.remove(job)

    def begin(self, *, followed: bool = False) -> RunningJob:
        self.store.admit(JobRequest(kind=Kind.GENERATE, prompt="p", stream=followed), ME, listener=LISTENER)
        return self.claim()

    def claim(self) -> RunningJob:
        claim = self.store.claim("worker-1")
        assert claim is not None
        job = RunningJob(claim)
        job.run = BatchSequence(job, prompt("text"))
        job.load_published(None)
        self.jobs.add(job)
        return job

    def say(self, job: RunningJob, text: str, *, end: bool = False) -> None:
        """Publish the report of one step that sampled one token."""
        sequence = sequence_of(job)
        sequence.generated.append(len(sequence.generated))
        outcome = sequence.end(Status.SUCCEEDED, FinishReason.LENGTH) if end else None
        self.publisher.publish([Report(job, Delta(text, tuple(sequence.generated[-1:])), outcome)])

    def events(self, job_id: str) -> list[EventEntry]:
        return read_events(self.client, [(job_id, FROM_START)])[0]

    def texts(self, job_id: str) -> list[str]:
        return [entry.event.text for entry in self.events(job_id) if isinstance(entry.event, Delta)]


def sequence_of(job: RunningJob) -> BatchSequence:
    assert isinstance(job.run, BatchSequence)
    return job.run
