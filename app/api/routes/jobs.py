"""The `/jobs` family: read, wait for, list, change, cancel, repeat and forget jobs."""

from typing import Any

from flask import Response

from app.access.api_key import Scope
from app.api.access import OWNER_PARAMETER, current_owner, current_principal, listed_owner, viewed_owner
from app.api.json_response import json_response
from app.api.openapi import LOCATION, Blueprint, describe_response
from app.api.request_context import KEY_PARAMETER, services, submit
from app.api.schemas.job import JobListSchema, JobOptions, JobSchema
from app.api.schemas.job_queries import JobChangeSchema, JobListQuerySchema, JobQuerySchema
from app.errors import Conflict
from app.jobs.job import Job

blueprint = Blueprint("jobs", __name__, description="Requests become jobs. Their owner can read and cancel them.")

JOB_ID_PARAMETER = {"in": "path", "name": "job_id", "schema": {"type": "string", "format": "uuid"}}
_PATH = "/jobs/<job_id>"
_ENDED = describe_response("The job, ended.", JobSchema)
_ENDING = describe_response("The job still runs; its worker ends it within a step.", JobSchema)


@blueprint.endpoint(
    "GET",
    "/jobs",
    query=JobListQuerySchema,
    parameters=[OWNER_PARAMETER],
    responses={200: describe_response("The caller's jobs, newest first.", JobListSchema)},
    scope=Scope.JOBS,
    problems=(404, 422, 503),
)
def list_jobs(query: dict[str, Any]) -> Response:
    """The caller's jobs, newest first."""
    limit, before = query["limit"], float(query["cursor"]) if "cursor" in query else None
    service = services().jobs
    jobs = service.store.list_jobs(listed_owner(), status=query.get("status"), limit=limit + 1, before=before)
    page = jobs[:limit]
    next_cursor = _cursor(page[-1]) if len(jobs) > limit else None
    return json_response({"object": "list", "data": service.documents(page), "next_cursor": next_cursor})


@blueprint.endpoint(
    "GET",
    _PATH,
    query=JobQuerySchema,
    parameters=[JOB_ID_PARAMETER, OWNER_PARAMETER],
    responses={200: describe_response("The job.", JobSchema)},
    scope=Scope.JOBS,
    problems=(404, 422, 503),
)
def read_job(query: dict[str, Any], job_id: str) -> Response:
    """A job as it is, or as it is after `wait` seconds at most."""
    jobs = services().jobs
    job = jobs.read(job_id, viewed_owner())
    if query["wait"] and not job.status.is_final:
        job = jobs.wait(job, query["wait"])
    return json_response(jobs.document(job))


@blueprint.endpoint(
    "PATCH",
    _PATH,
    body=JobChangeSchema,
    parameters=[JOB_ID_PARAMETER, OWNER_PARAMETER],
    responses={200: describe_response("The job as it is now.", JobSchema)},
    scope=Scope.JOBS,
    problems=(400, 404, 409, 413, 422, 503),
)
def change_job(body: dict[str, Any], job_id: str) -> Response:
    """Change the priority of a job that waits. 409 if it runs or has ended."""
    jobs = services().jobs
    job = jobs.change_priority(jobs.read(job_id, viewed_owner()), body["priority"], current_principal())
    return json_response(jobs.document(job))


@blueprint.endpoint(
    "POST",
    f"{_PATH}/cancel",
    parameters=[JOB_ID_PARAMETER, OWNER_PARAMETER],
    responses={200: _ENDED, 202: _ENDING},
    scope=Scope.JOBS,
    problems=(404, 422, 503),
)
def cancel_job(job_id: str) -> Response:
    """Cancel a job; one that has ended stays as it is."""
    return _cancel(services().jobs.read(job_id, viewed_owner()))


@blueprint.endpoint(
    "DELETE",
    _PATH,
    parameters=[JOB_ID_PARAMETER, OWNER_PARAMETER],
    responses={200: _ENDED, 202: _ENDING, 204: describe_response("The job had ended and is forgotten.")},
    scope=Scope.JOBS,
    problems=(404, 422, 503),
)
def delete_job(job_id: str) -> Response:
    """Forget a job that has ended, cancel one that has not."""
    jobs = services().jobs
    job = jobs.read(job_id, viewed_owner())
    return Response(status=204) if jobs.store.delete(job) else _cancel(job)


@blueprint.endpoint(
    "POST",
    f"{_PATH}/retry",
    parameters=[JOB_ID_PARAMETER, KEY_PARAMETER],
    responses={202: describe_response("The new job, accepted.", JobSchema, LOCATION)},
    scope=Scope.INFERENCE,
    problems=(404, 409, 422, 503),
)
def retry_job(job_id: str) -> Response:
    """Run the request of a job that has ended once more, as a new job with an id of its own.

    409 if the job still runs, or its request is not kept: one of more than 16 KiB is deleted when its job ends.
    """
    jobs = services().jobs
    job = jobs.read(job_id, current_owner())
    if not job.status.is_final:
        raise Conflict(f"the job is {job.status}; cancel it first, or wait for its end")
    again = submit(jobs.repeated_request(job, current_principal()), JobOptions())
    return json_response(jobs.document(again), 202)


def _cancel(job: Job) -> Response:
    job = services().jobs.cancel(job)
    return json_response(services().jobs.document(job), 200 if job.status.is_final else 202)


def _cursor(job: Job) -> str:
    """The place after a job in the list: its time of creation, which the store orders by."""
    return f"{job.created_at:.6f}"
