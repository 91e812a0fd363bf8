"""The `/jobs` family: read, wait for, list, cancel and forget jobs."""

from typing import Any

from flask import Response

from app.api import dispatch
from app.api.auth import current_owner
from app.api.json_response import json_answer
from app.api.openapi import Blueprint, answer
from app.api.schemas.job import JobListQuerySchema, JobListSchema, JobQuerySchema, JobSchema
from app.api.services import services
from app.errors import ShuttingDown
from app.jobs.job import Job

blueprint = Blueprint("jobs", __name__, description="Every request is a job; whoever made it may come back to it.")

JOB_ID_PARAMETER = {"in": "path", "name": "job_id", "schema": {"type": "string", "format": "uuid"}}
_PATH = "/jobs/<job_id>"
_ENDED = answer("The job, ended.", JobSchema)
_TOLD = answer("The job still runs; its worker has been told and ends it within a step.", JobSchema)


@blueprint.endpoint(
    "GET",
    "/jobs",
    query=JobListQuerySchema,
    answers={200: answer("The caller's jobs, newest first.", JobListSchema)},
    problems=(422, 503),
)
def list_jobs(query: dict[str, Any]) -> Response:
    """The caller's jobs, newest first."""
    limit, before = query["limit"], float(query["cursor"]) if "cursor" in query else None
    found = services().store.list_jobs(current_owner(), status=query.get("status"), limit=limit + 1, before=before)
    page = found[:limit]
    next_cursor = _cursor(page[-1]) if len(found) > limit else None
    return json_answer({"object": "list", "data": dispatch.documents(page), "next_cursor": next_cursor})


@blueprint.endpoint(
    "GET",
    _PATH,
    query=JobQuerySchema,
    parameters=[JOB_ID_PARAMETER],
    answers={200: answer("The job.", JobSchema)},
    problems=(404, 422, 503),
)
def read_job(query: dict[str, Any], job_id: str) -> Response:
    """A job as it is, or as it is after `wait` seconds at most."""
    job = dispatch.existing_job(job_id)
    if query["wait"] and not job.status.is_final:
        job = _wait(job.id, query["wait"]) or services().store.read(job.id)
    return json_answer(dispatch.document(job))


@blueprint.endpoint(
    "POST",
    f"{_PATH}/cancel",
    parameters=[JOB_ID_PARAMETER],
    answers={200: _ENDED, 202: _TOLD},
    problems=(404, 422, 503),
)
def cancel_job(job_id: str) -> Response:
    """Cancel a job; one that has ended stays as it is."""
    return _cancel(dispatch.existing_job(job_id))


@blueprint.endpoint(
    "DELETE",
    _PATH,
    parameters=[JOB_ID_PARAMETER],
    answers={200: _ENDED, 202: _TOLD, 204: answer("The job had ended and is forgotten.")},
    problems=(404, 422, 503),
)
def delete_job(job_id: str) -> Response:
    """Forget a job that has ended, cancel one that has not."""
    job = dispatch.existing_job(job_id)
    if services().store.forget(job):
        return Response(status=204)
    return _cancel(job)


def _wait(job_id: str, seconds: float) -> Job | None:
    """The final job; None when the time is over, or this process ends: whoever asked may ask again."""
    try:
        return services().waiters.wait(job_id, seconds)
    except ShuttingDown:
        return None


def _cancel(job: Job) -> Response:
    services().store.cancel(job.id)
    job = services().store.read(job.id)
    return json_answer(dispatch.document(job), 200 if job.status.is_final else 202)


def _cursor(job: Job) -> str:
    """The place after a job in the list: its time of creation, which the store orders by."""
    return f"{job.created_at:.6f}"
