"""The response bodies of `/v1/models`, `/readyz` and `/healthz`."""

from marshmallow import Schema, fields, validate

from app.api.schemas.fields import constant
from app.jobs.worker_registry import WorkerState

ABSENT = "absent"  # no worker of the model is registered
MODEL_STATES = [*(state.value for state in WorkerState), ABSENT]
_PROGRESS = {"description": "0 to 1 while the model is downloaded; null if unknown."}


class ModelSchema(Schema):
    id = fields.String(required=True)
    object = constant("model")
    created = fields.Integer(required=True, metadata={"description": "Unix seconds: when this API process started."})
    owned_by = fields.String(required=True)
    family = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(MODEL_STATES))
    detail = fields.String(required=True, metadata={"description": "The status that its worker reports."})
    progress = fields.Float(required=True, allow_none=True, metadata=_PROGRESS)
    context_tokens = fields.Integer(required=True, allow_none=True)
    default_params = fields.Dict(
        keys=fields.String(),
        values=fields.Raw(metadata={"type": "number"}),
        required=True,
        metadata={
            "description": "Sampling parameters of /generate and /agenerate that a request leaves out, as far as its "
            "worker announces them. OpenAI's endpoints have OpenAI's max_tokens, and no repeat_penalty."
        },
    )
    parent = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Of a LoRA adapter: the model that it changes. null: the model itself."},
    )


class ModelListSchema(Schema):
    object = constant("list")
    data = fields.List(fields.Nested(ModelSchema), required=True)


class WorkerStateSchema(Schema):
    id = fields.String(required=True)
    state = fields.Enum(WorkerState, by_value=True, required=True)
    detail = fields.String(required=True)
    progress = fields.Float(required=True, allow_none=True, metadata=_PROGRESS)
    slots = fields.Integer(required=True, metadata={"description": "The maximum number of sequences in one batch."})
    running = fields.Integer(required=True)
    version = fields.String(required=True, metadata={"description": "Must be that of the API."})
    used_cells = fields.Integer(
        required=True, metadata={"description": "Cells of the cache that running sequences occupy."}
    )


class ReadinessSchema(Schema):
    """The status alone where an API key is needed, and none was sent."""

    status = constant("ready")
    model = fields.String()
    version = fields.String(metadata={"description": "Of this API process."})
    workers = fields.List(fields.Nested(WorkerStateSchema))


class HealthSchema(Schema):
    status = constant("ok")
