"""`/v1/models`: the model that is served here, in OpenAI's shape, and the state of its workers."""

import re
from typing import Any

from flask import Response

from app.api.access import current_principal
from app.api.json_response import json_response
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.schemas.models import ABSENT, ModelListSchema, ModelSchema
from app.jobs.worker_registry import WorkerInfo, WorkerState, read_workers

blueprint = Blueprint("models", __name__, description="OpenAI's model list.")

_PREFERENCE = [WorkerState.READY, WorkerState.LOADING, WorkerState.DRAINING, WorkerState.STALLED, WorkerState.FAILED]
_PATTERN = re.compile(r"[*?[]")  # what `fnmatch` reads
_LIST = ModelListSchema()
_MODEL = ModelSchema()


@blueprint.endpoint(
    "GET",
    "/v1/models",
    responses={200: describe_response("The model of this service.", ModelListSchema)},
    scope=None,
    problems=(503,),
)
def list_models() -> Response:
    """The model served here; `state`, `detail` and `progress` show how far its workers are.

    Its `model_aliases` are listed beside it, for clients that look for the name they are set to, and its LoRA adapters,
    whose `parent` it is.
    """
    parent = services().config.model_name
    models = [_model(name) for name in _names()]
    adapters = [_model(adapter.name, parent) for adapter in services().jobs.adapters.all(current_principal().models)]
    return json_response(_LIST.dump({"object": "list", "data": models + adapters}))


@blueprint.endpoint(
    "GET",
    "/v1/models/<path:model_id>",
    parameters=[{"in": "path", "name": "model_id", "schema": {"type": "string"}}],
    responses={200: describe_response("The model.", ModelSchema)},
    scope=None,
    problems=(404, 503),
)
def read_model(model_id: str) -> Response:
    """One model by its name: the one that is served here, or one of its adapters."""
    config = services().config
    if (adapter := services().jobs.adapters.of_model(model_id, current_principal().models)) is not None:
        return json_response(_MODEL.dump(_model(adapter.name, config.model_name)))
    return json_response(_MODEL.dump(_model(model_id if model_id in _names() else config.model_name)))


def _names() -> list[str]:
    """Return the names of the model, except for patterns."""
    names = services().jobs.adapters.names_of_model(current_principal().models)
    return [name for name in names if name == services().config.model_name or not _PATTERN.search(name)]


def _model(name: str, parent: str | None = None) -> dict[str, Any]:
    """parent: of an adapter, the model that it changes."""
    config = services().config
    best = best_worker(workers_of(config.model_name))
    return {
        "id": name,
        "object": "model",
        "created": int(services().started_at),
        "owned_by": "llm-api",
        "family": config.model_family,
        "state": best.state.value if best else ABSENT,
        "detail": best.detail if best else "no worker is known",
        "progress": best.progress if best else None,
        "context_tokens": (best.context_tokens or None) if best else None,
        "default_params": best.default_params if best else {},
        "parent": parent,
    }


def workers_of(model: str) -> list[WorkerInfo]:
    return [info for info in read_workers(services().redis) if info.model == model]


def best_worker(workers: list[WorkerInfo]) -> WorkerInfo | None:
    """Return the worker that is closest to serving the model."""
    return min(workers, key=lambda info: (_PREFERENCE.index(info.state), -(info.progress or 0)), default=None)
