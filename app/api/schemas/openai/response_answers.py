"""OpenAI's response object, for the documentation: `app.api.openai.responses` writes it as a plain object."""

from marshmallow import Schema, fields

from app.api.schemas.openai.answers import ChatTokenSchema
from app.api.schemas.openai.metadata import shown_metadata

STATUSES = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")


def _constant(value: str) -> fields.String:
    return fields.String(required=True, metadata={"enum": [value]})


def _any(*types: str) -> fields.Raw:
    """Repeated as it was sent."""
    return fields.Raw(required=True, metadata={"type": list(types)})


class OutputTextSchema(Schema):
    type = _constant("output_text")
    text = fields.String(required=True)
    annotations = fields.List(fields.Raw(), required=True, metadata={"maxItems": 0})
    logprobs = fields.List(fields.Nested(ChatTokenSchema), required=True)


class OutputItemSchema(Schema):
    """A message, or a function call."""

    id = fields.String(required=True)
    type = fields.String(required=True, metadata={"enum": ["message", "function_call"]})
    status = fields.String(required=True, metadata={"enum": ["completed", "incomplete"]})
    role = fields.String(metadata={"enum": ["assistant"]})
    content = fields.List(fields.Nested(OutputTextSchema))
    call_id = fields.String()
    name = fields.String()
    arguments = fields.String(metadata={"description": "A JSON object, as a text."})


class ResponseFaultSchema(Schema):
    code = fields.String(required=True, metadata={"enum": ["server_error", "invalid_prompt"]})
    message = fields.String(required=True)


class IncompleteDetailsSchema(Schema):
    reason = _constant("max_output_tokens")


class InputTokensDetailsSchema(Schema):
    cached_tokens = fields.Integer(required=True)
    cache_write_tokens = fields.Integer(required=True)


class OutputTokensDetailsSchema(Schema):
    reasoning_tokens = fields.Integer(required=True)


class ResponseUsageSchema(Schema):
    input_tokens = fields.Integer(required=True)
    input_tokens_details = fields.Nested(InputTokensDetailsSchema, required=True)
    output_tokens = fields.Integer(required=True)
    output_tokens_details = fields.Nested(OutputTokensDetailsSchema, required=True)
    total_tokens = fields.Integer(required=True)


class ResponseObjectSchema(Schema):
    id = fields.String(required=True)
    object = _constant("response")
    created_at = fields.Integer(required=True)
    completed_at = fields.Integer(required=True, allow_none=True)
    status = fields.String(required=True, metadata={"enum": list(STATUSES)})
    error = fields.Nested(ResponseFaultSchema, required=True, allow_none=True)
    incomplete_details = fields.Nested(IncompleteDetailsSchema, required=True, allow_none=True)
    model = fields.String(required=True)
    output = fields.List(fields.Nested(OutputItemSchema), required=True)
    usage = fields.Nested(ResponseUsageSchema, required=True, allow_none=True)
    background = fields.Boolean(required=True)
    instructions = fields.String(required=True, allow_none=True)
    max_output_tokens = fields.Integer(required=True, allow_none=True)
    metadata = shown_metadata()
    parallel_tool_calls = fields.Boolean(required=True)
    previous_response_id = fields.String(required=True, allow_none=True)
    reasoning = _any("object")
    temperature = fields.Float(required=True, allow_none=True)
    text = _any("object")
    tool_choice = _any("string", "object")
    tools = fields.List(fields.Dict(), required=True)
    top_logprobs = fields.Integer(required=True)
    top_p = fields.Float(required=True, allow_none=True)
    store = fields.Boolean(required=True)
    truncation = _constant("disabled")


class ResponseDeletedSchema(Schema):
    id = fields.String(required=True)
    object = _constant("response")
    deleted = fields.Boolean(required=True)
