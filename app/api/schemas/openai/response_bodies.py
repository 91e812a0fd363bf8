"""OpenAI's response bodies, for the documentation only: `app.api.openai` writes them as plain objects."""

from marshmallow import Schema, fields

from app.api.schemas.fields import constant

RESPONSE_STATUSES = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")


class UsageDetailsSchema(Schema):
    cached_tokens = fields.Integer(
        required=True, metadata={"description": "Tokens of the prompt that were already in the cache."}
    )


class CompletionUsageSchema(Schema):
    prompt_tokens = fields.Integer(
        required=True, metadata={"description": "The prompt of several choices counts once."}
    )
    completion_tokens = fields.Integer(required=True)
    total_tokens = fields.Integer(required=True)
    prompt_tokens_details = fields.Nested(UsageDetailsSchema, required=True)


class TopTokenSchema(Schema):
    token = fields.String(required=True)
    logprob = fields.Float(required=True)
    bytes = fields.List(fields.Integer(), required=True)


class ChatTokenSchema(TopTokenSchema):
    top_logprobs = fields.List(fields.Nested(TopTokenSchema), required=True)


class ChatLogprobsSchema(Schema):
    content = fields.List(fields.Nested(ChatTokenSchema), required=True)
    refusal = fields.Raw(required=True, metadata={"type": "null"})


class FunctionCallSchema(Schema):
    name = fields.String(required=True)
    arguments = fields.String(required=True, metadata={"description": "A JSON object, as text."})


class MessageCallSchema(Schema):
    id = fields.String(required=True)
    type = constant("function")
    function = fields.Nested(FunctionCallSchema, required=True)


class AnswerMessageSchema(Schema):
    role = constant("assistant")
    content = fields.String(required=True, allow_none=True)
    refusal = fields.Raw(required=True, metadata={"type": "null"})
    reasoning_content = fields.String(
        metadata={
            "description": "What the model wrote in `<think>...</think>` before the text; missing if it wrote none."
        }
    )
    tool_calls = fields.List(fields.Nested(MessageCallSchema))
    function_call = fields.Nested(FunctionCallSchema, metadata={"deprecated": True})


class ChatChoiceSchema(Schema):
    index = fields.Integer(required=True)
    message = fields.Nested(AnswerMessageSchema, required=True)
    logprobs = fields.Nested(ChatLogprobsSchema, required=True, allow_none=True)
    finish_reason = constant("stop", "length", "content_filter", "tool_calls", "function_call")


class _AnswerSchema(Schema):
    id = fields.String(required=True)
    created = fields.Integer(required=True)
    model = fields.String(required=True)
    system_fingerprint = fields.String(required=True)
    usage = fields.Nested(CompletionUsageSchema, required=True)


class ChatCompletionSchema(_AnswerSchema):
    object = constant("chat.completion")
    choices = fields.List(fields.Nested(ChatChoiceSchema), required=True)


class TextLogprobsSchema(Schema):
    tokens = fields.List(fields.String(), required=True)
    token_logprobs = fields.List(fields.Float(allow_none=True), required=True)
    top_logprobs = fields.List(fields.Dict(keys=fields.String(), values=fields.Float(), allow_none=True), required=True)
    text_offset = fields.List(fields.Integer(), required=True)


class TextChoiceSchema(Schema):
    index = fields.Integer(required=True)
    text = fields.String(required=True)
    logprobs = fields.Nested(TextLogprobsSchema, required=True, allow_none=True)
    finish_reason = constant("stop", "length", "content_filter")


class CompletionAnswerSchema(_AnswerSchema):
    object = constant("text_completion")
    choices = fields.List(fields.Nested(TextChoiceSchema), required=True)


class EmbeddingUsageSchema(Schema):
    prompt_tokens = fields.Integer(required=True)
    total_tokens = fields.Integer(required=True)


class EmbeddingRowSchema(Schema):
    object = constant("embedding")
    index = fields.Integer(required=True)
    embedding = fields.Raw(
        required=True, metadata={"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]}
    )


class EmbeddingAnswerSchema(Schema):
    object = constant("list")
    data = fields.List(fields.Nested(EmbeddingRowSchema), required=True)
    model = fields.String(required=True)
    usage = fields.Nested(EmbeddingUsageSchema, required=True)


def shown_metadata() -> fields.Dict:
    """Return the field for the `metadata` of the request."""
    return fields.Dict(keys=fields.String(), values=fields.String(), required=True, allow_none=True)


def _any(*types: str) -> fields.Raw:
    """Return the field of what is repeated as it was sent."""
    return fields.Raw(required=True, metadata={"type": list(types)})


class OutputTextSchema(Schema):
    type = constant("output_text")
    text = fields.String(required=True)
    annotations = fields.List(fields.Raw(), required=True, metadata={"maxItems": 0})
    logprobs = fields.List(fields.Nested(ChatTokenSchema), required=True)


class OutputItemSchema(Schema):
    """A message, a function call, or the call of a custom tool."""

    id = fields.String(required=True)
    type = constant("message", "function_call", "custom_tool_call")
    status = constant("completed", "incomplete")
    role = fields.String(metadata={"enum": ["assistant"]})
    content = fields.List(fields.Nested(OutputTextSchema))
    call_id = fields.String()
    name = fields.String()
    namespace = fields.String(metadata={"description": "Of the tool, where the request has it in one."})
    arguments = fields.String(metadata={"description": "A JSON object, as text."})
    input = fields.String(metadata={"description": "The text for a custom tool."})


class ResponseFaultSchema(Schema):
    code = constant("server_error", "invalid_prompt")
    message = fields.String(required=True)


class IncompleteDetailsSchema(Schema):
    reason = constant("max_output_tokens")


class InputTokensDetailsSchema(UsageDetailsSchema):
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
    object = constant("response")
    created_at = fields.Integer(required=True)
    completed_at = fields.Integer(required=True, allow_none=True)
    status = constant(*RESPONSE_STATUSES)
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
    truncation = constant("disabled")


class ResponseDeletedSchema(Schema):
    id = fields.String(required=True)
    object = constant("response")
    deleted = fields.Boolean(required=True)


class InputTokensSchema(Schema):
    object = constant("response.input_tokens")
    input_tokens = fields.Integer(required=True)
