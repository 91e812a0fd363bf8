"""Health checks: whether the process lives, and whether it could serve a prompt now."""

from flask import Response

from app.api.access import optional_key
from app.api.json_response import JSON, json_response
from app.api.openapi import Blueprint, describe_response
from app.api.problems import error_response
from app.api.request_context import services
from app.api.routes.models import best_worker, workers_of
from app.api.schemas.models import HealthSchema, ReadinessSchema, WorkerStateSchema
from app.errors import NoWorker
from app.jobs import keys
from app.jobs.version import service_version
from app.jobs.worker_registry import WorkerInfo, WorkerState, connected_workers

blueprint = Blueprint("health", __name__, description="For probes and people.")

RETRY_SECONDS = 2
PROBE_SECONDS = 60  # how long what `/readyz` writes is kept
_WORKERS = WorkerStateSchema(many=True)
_DOING = {
    WorkerState.LOADING: "is loading its model",
    WorkerState.STALLED: "is stalled",
    WorkerState.DRAINING: "is stopping",
    WorkerState.FAILED: "has failed",
}


@blueprint.endpoint(
    "GET", "/check", scope=None, responses={200: describe_response("Ok", {JSON: {"type": "string", "enum": ["Ok"]}})}
)
def check() -> Response:
    """The original API's health check."""
    return json_response("Ok")


@blueprint.endpoint(
    "GET", "/healthz", scope=None, responses={200: describe_response("The process lives.", HealthSchema)}
)
def healthz() -> Response:
    """Whether this process responds; nothing else is checked."""
    return json_response({"status": "ok"})


@blueprint.endpoint(
    "GET",
    "/readyz",
    responses={200: describe_response("A prompt would be served now.", ReadinessSchema)},
    scope=None,
    problems=(503,),
)
def readyz() -> Response:
    """Whether Redis accepts jobs and a worker has its model loaded; else what is missing, with workers and progress.

    Where API keys are needed, a request without one gets the status alone.
    """
    model = services().config.model_name
    services().redis.set(keys.PROBE, "1", ex=PROBE_SECONDS)
    workers = workers_of(model)
    missing = _missing(workers, model)
    is_stranger = services().authentication.is_needed() and optional_key() is None
    if missing is not None:
        detail = "it is not ready; a request with an API key shows what is missing" if is_stranger else missing
        members = {} if is_stranger else {"workers": _WORKERS.dump(workers)}
        return error_response(NoWorker(detail, retry_after_seconds=RETRY_SECONDS), **members)
    if is_stranger:
        return json_response({"status": "ready"})
    shown = {"model": model, "version": service_version(), "workers": _WORKERS.dump(workers)}
    return json_response({"status": "ready", **shown})


def _missing(workers: list[WorkerInfo], model: str) -> str | None:
    """Return what the service lacks, None where it is ready."""
    best = best_worker(workers)
    if best is not None and best.state is WorkerState.READY:
        ready = [info for info in workers if info.state is WorkerState.READY]
        if connected_workers(services().redis, ready):
            return None
        return f"the worker of {model!r} has no connection to Redis: it has died, or connects again"
    if best is None:
        return f"no worker serves {model!r}; start one, or wait for one that starts: its log shows how far it is"
    progress = "" if best.progress is None else f", {best.progress:.0%}"
    detail = f": {best.detail}" if best.detail else ""
    return f"the worker of {model!r} {_DOING[best.state]}{progress}{detail}"
