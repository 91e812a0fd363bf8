"""What is served, and by whom: `/v1/models` and `/readyz`."""

from marshmallow import Schema, fields, validate

from app.jobs.workers import WorkerState

ABSENT = "absent"  # no worker of the model has been heard of
MODEL_STATES = [*(state.value for state in WorkerState), ABSENT]
_PROGRESS = {"description": "0-1 while the model is fetched; null when unknown."}


class ModelSchema(Schema):
    id = fields.String(required=True)
    object = fields.String(required=True, metadata={"enum": ["model"]})
    created = fields.Integer(required=True, metadata={"description": "Unix seconds: when this API process started."})
    owned_by = fields.String(required=True)
    family = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(MODEL_STATES))
    detail = fields.String(required=True, metadata={"description": "What its worker says about itself."})
    progress = fields.Float(required=True, allow_none=True, metadata=_PROGRESS)
    context_tokens = fields.Integer(required=True, allow_none=True)


class ModelListSchema(Schema):
    object = fields.String(required=True, metadata={"enum": ["list"]})
    data = fields.List(fields.Nested(ModelSchema), required=True)


class WorkerStateSchema(Schema):
    id = fields.String(required=True)
    state = fields.Enum(WorkerState, by_value=True, required=True)
    detail = fields.String(required=True)
    progress = fields.Float(required=True, allow_none=True, metadata=_PROGRESS)
    slots = fields.Integer(required=True, metadata={"description": "Sequences in one batch at most."})
    running = fields.Integer(required=True)
    used_cells = fields.Integer(required=True, metadata={"description": "Cache cells held by running sequences."})


class ReadinessSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["ready"]})
    model = fields.String(required=True)
    workers = fields.List(fields.Nested(WorkerStateSchema), required=True)


class HealthSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["ok"]})
