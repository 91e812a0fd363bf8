"""Health checks: whether the process lives, and whether it could serve a prompt now."""

from flask import Response

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


@blueprint.endpoint(
    "GET", "/check", responses={200: describe_response("Ok", {JSON: {"type": "string", "enum": ["Ok"]}})}
)
def check() -> Response:
    """The original API's health check."""
    return json_response("Ok")


@blueprint.endpoint("GET", "/healthz", responses={200: describe_response("The process lives.", HealthSchema)})
def healthz() -> Response:
    """Whether this process responds; nothing else is checked."""
    return json_response({"status": "ok"})


@blueprint.endpoint(
    "GET",
    "/readyz",
    responses={200: describe_response("A prompt would be served now.", ReadinessSchema)},
    problems=(503,),
)
def readyz() -> Response:
    """Whether Redis accepts jobs and a worker has its model loaded; else what is missing, with workers and progress."""
    model = services().config.model_name
    services().redis.set(keys.PROBE, "1", ex=PROBE_SECONDS)
    workers = workers_of(model)
    shown = _WORKERS.dump(workers)
    best = best_worker(workers)
    if best is None or best.state is not WorkerState.READY:
        return error_response(NoWorker(_missing(best, model), retry_after_seconds=RETRY_SECONDS), workers=shown)
    ready = [info for info in workers if info.state is WorkerState.READY]
    if not connected_workers(services().redis, ready):
        detail = f"the worker of {model!r} has no connection to Redis: it has died, or connects again"
        return error_response(NoWorker(detail, retry_after_seconds=RETRY_SECONDS), workers=shown)
    return json_response({"status": "ready", "model": model, "version": service_version(), "workers": shown})


def _missing(best: WorkerInfo | None, model: str) -> str:
    if best is None:
        return f"no worker serves {model!r}; start one, or wait for one that starts: its log shows how far it is"
    progress = "" if best.progress is None else f", {best.progress:.0%}"
    return f"the worker of {model!r} is {best.state}{progress}: {best.detail or 'it gives no detail'}"
