"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`: LoRA adapters of the running workers, as in vLLM."""

from typing import Any

from flask import Response

from app.access.api_key import Scope
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.schemas.openai.adapters import LoadAdapterSchema, UnloadAdapterSchema

blueprint = Blueprint("openai_adapters", __name__, description="vLLM's API: LoRA adapters of running workers.")

_TEXT = "text/plain; charset=utf-8"


@blueprint.endpoint(
    "POST",
    "/v1/load_lora_adapter",
    body=LoadAdapterSchema,
    responses={200: describe_response("Every worker has it.", {_TEXT: None})},
    scope=Scope.ADMIN,
    problems=(400, 403, 503, 504),
)
def load_lora_adapter(body: dict[str, Any]) -> Response:
    """Load an adapter on all workers of the model, those that start later too. Needs `adapters.runtime_loading`."""
    name = body["lora_name"]
    services().adapter_loading.load(name, body["lora_path"], replaces=body.get("load_inplace", False))
    return Response(f"Success: LoRA adapter '{name}' added successfully.", content_type=_TEXT)


@blueprint.endpoint(
    "POST",
    "/v1/unload_lora_adapter",
    body=UnloadAdapterSchema,
    responses={200: describe_response("No further request can choose it.", {_TEXT: None})},
    scope=Scope.ADMIN,
    problems=(400, 403, 404, 503),
)
def unload_lora_adapter(body: dict[str, Any]) -> Response:
    """Unload an adapter that was loaded at run time. Needs `adapters.runtime_loading`."""
    name = body["lora_name"]
    services().adapter_loading.unload(name)
    return Response(f"Success: LoRA adapter '{name}' removed successfully.", content_type=_TEXT)
