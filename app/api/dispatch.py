"""Admits jobs for whoever asks, and turns their outcome into an answer or an error."""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, after_this_request, request

from app.api.auth import current_owner
from app.api.idempotency import idempotency_key
from app.api.request_parser import invalid_request
from app.api.schemas.job import JOB_ID, JobOptions, JobSchema, JobView, job_path
from app.api.services import services
from app.api.waiting.waiters import ClientGone, Waiter
from app.api.webhooks.post import refuse_unsendable
from app.errors import (
    EngineFailed,
    JobCanceled,
    JobExpired,
    JobNotFound,
    LLMAPIError,
    NotAdmitted,
    WaitTimeout,
    error_from_code,
)
from app.jobs.job import AnswerSource, Job, JobError, JobRequest, Kind, OnDisconnect, Status
from app.jobs.store import new_job_id

WAIT_GRACE_SECONDS = 30.0  # beyond the job's own time: its turn in the queue, and its last words
_JOB_SCHEMA = JobSchema()


def timeout_seconds(options: JobOptions) -> float:
    """What the client asked for, never more than `jobs.timeout`."""
    longest = float(services().config.jobs.timeout)
    return longest if options.timeout is None else min(options.timeout, longest)


def job_request(kind: Kind, options: JobOptions, **asked: Any) -> JobRequest:
    """asked: what `JobRequest` holds besides its kind and how it is run. Raises InvalidRequest (the webhook)."""
    if options.webhook is not None:
        refuse_unsendable(options.webhook, services().config.webhooks)
    return JobRequest(
        kind=kind,
        priority=options.priority,
        timeout_seconds=timeout_seconds(options),
        expires_in_seconds=options.expires_in,
        ttl_seconds=options.ttl,
        webhook=options.webhook,
        **asked,
    )


def admit(job_request: JobRequest, job_id: str | None = None) -> Job:
    """Make a job, or find the one that this request has made before under its Idempotency-Key: its id is another than
    `job_id`.

    Raises QueueFull, NoWorker, Conflict, InvalidRequest (the key).
    """
    return admit_one_of(job_request, job_id, idempotency_key(), is_first=True)


def admit_one_of(job_request: JobRequest, job_id: str | None, key: str | None, *, is_first: bool) -> Job:
    """As `admit`, of a request that makes several jobs, each under a key of its own. The answer says where the first
    is.
    """
    try:
        job = services().store.admit(job_request, current_owner(), job_id, idempotency_key=key)
    except NotAdmitted as refusal:
        refusal.retry_after_seconds = services().estimate.retry_after_seconds(refusal.waiting)
        raise
    if is_first:
        _locate(job_path(job.id))
    return job


def run(job_request: JobRequest, on_disconnect: OnDisconnect | None) -> Job:
    """Admit a job and wait for its success.

    Raises the error the job failed with, JobCanceled, JobExpired, TooManyWaiters, ClientGone, what `admit` raises, and
    WaitTimeout, ShuttingDown where the job goes on.
    """
    seconds = job_request.timeout_seconds + WAIT_GRACE_SECONDS
    with services().waiters.expect(job_id := new_job_id()) as waiter:
        admitted = admit(job_request, job_id)
        is_new = admitted.id == job_id
        job = _end_of_new(waiter, seconds, on_disconnect) if is_new else None
    if not is_new:
        job = _end_of_earlier(admitted, seconds)
    if job is None:
        raise WaitTimeout(f"the job has not ended yet and goes on; read it at {job_path(admitted.id)}")
    raise_unless_succeeded(job.status, job.error)
    tell_cached([job])
    return job


def tell_cached(jobs: Sequence[Job]) -> None:
    """An answer of jobs that were all answered by earlier ones says so, as RFC 9211 has it."""
    if all(job.metrics is not None and job.metrics.source is AnswerSource.CACHED for job in jobs):
        _add_header("Cache-Status", "llm-api; hit")


def cancels_when_left(on_disconnect: OnDisconnect | None) -> bool:
    """Whether a job ends when the client that made it leaves; None: unless it can come back to it with its key."""
    if on_disconnect is None:
        return idempotency_key() is None
    return on_disconnect is OnDisconnect.CANCEL


def raise_unless_succeeded(status: Status, job_error: JobError | None) -> None:
    """Raises what the end of a job that did not succeed means to whoever waited for it."""
    error = error_of(status, job_error)
    if error is not None:
        raise error


def error_of(status: Status, job_error: JobError | None) -> LLMAPIError | None:
    if status is Status.SUCCEEDED:
        return None
    if job_error is not None:
        return error_from_code(job_error.code, job_error.message, job_error.errors)
    if status is Status.CANCELED:
        return JobCanceled("the job was canceled before its end")
    if status is Status.EXPIRED:
        return JobExpired("the job waited too long for its turn; try again, or ask for a higher priority")
    return EngineFailed("the job failed, and its worker did not say why")


def existing_job(job_id: str) -> Job:
    """A job the caller may see. Raises InvalidRequest for what cannot be an id, JobNotFound."""
    if not JOB_ID.fullmatch(job_id):
        raise invalid_request({"job_id": ["Must be a job id: a UUID such as POST /agenerate answers with."]})
    job = services().store.read(job_id.lower())
    if job.owner != current_owner():
        raise JobNotFound(f"no job has the id {job_id!r}: it never was, or its time to live has passed")
    return job


def document(job: Job) -> Mapping[str, Any]:
    """The job object of the HTTP API."""
    return documents([job])[0]


def documents(jobs: Sequence[Job]) -> list[Mapping[str, Any]]:
    """The job objects of several jobs; their places in line cost one round trip, their turns a reading a second."""
    positions = services().store.queue_positions(jobs)
    starts = services().estimate.start_times(jobs, positions)
    return [_JOB_SCHEMA.dump(JobView(*shown)) for shown in zip(jobs, positions, starts, strict=True)]


def _end_of_new(waiter: Waiter, seconds: float, on_disconnect: OnDisconnect | None) -> Job | None:
    try:
        return waiter.end(seconds, client_socket())
    except ClientGone:
        if cancels_when_left(on_disconnect):
            services().store.cancel(waiter.job_id)
        raise


def _end_of_earlier(job: Job, seconds: float) -> Job | None:
    """Whoever waits for a job that another request has made may leave: the job is not theirs to cancel."""
    if job.status.is_final:
        return job
    return services().waiters.wait(job.id, seconds, client_socket=client_socket())


def _locate(path: str) -> None:
    """Whatever answers the current request, an error too, shall say that its job is there."""
    _add_header("Location", path)


def _add_header(name: str, value: str) -> None:
    def add(response: Response) -> Response:
        response.headers[name] = value
        return response

    after_this_request(add)


def client_socket() -> socket.socket | None:
    """The socket to watch, under a server that shows it (gunicorn)."""
    client = request.environ.get("gunicorn.socket")
    return client if isinstance(client, socket.socket) else None
