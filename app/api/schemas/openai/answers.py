"""OpenAI's answers, for the documentation: `app.api.openai` writes them as plain objects."""

from marshmallow import Schema, fields


def _constant(value: str) -> fields.String:
    return fields.String(required=True, metadata={"enum": [value]})


class UsageDetailsSchema(Schema):
    cached_tokens = fields.Integer(required=True, metadata={"description": "Of the prompt, computed before."})


class CompletionUsageSchema(Schema):
    prompt_tokens = fields.Integer(required=True, metadata={"description": "A prompt of several choices counts once."})
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
    arguments = fields.String(required=True, metadata={"description": "A JSON object, as a text."})


class MessageCallSchema(Schema):
    id = fields.String(required=True)
    type = _constant("function")
    function = fields.Nested(FunctionCallSchema, required=True)


class AnswerMessageSchema(Schema):
    role = _constant("assistant")
    content = fields.String(required=True, allow_none=True)
    refusal = fields.Raw(required=True, metadata={"type": "null"})
    reasoning_content = fields.String(
        metadata={"description": "What stood in `<think>...</think>` before the answer; not there without."}
    )
    tool_calls = fields.List(fields.Nested(MessageCallSchema))
    function_call = fields.Nested(FunctionCallSchema, metadata={"deprecated": True})


class ChatChoiceSchema(Schema):
    index = fields.Integer(required=True)
    message = fields.Nested(AnswerMessageSchema, required=True)
    logprobs = fields.Nested(ChatLogprobsSchema, required=True, allow_none=True)
    finish_reason = fields.String(
        required=True, metadata={"enum": ["stop", "length", "content_filter", "tool_calls", "function_call"]}
    )


class _AnswerSchema(Schema):
    id = fields.String(required=True)
    created = fields.Integer(required=True)
    model = fields.String(required=True)
    system_fingerprint = fields.String(required=True)
    usage = fields.Nested(CompletionUsageSchema, required=True)


class ChatCompletionSchema(_AnswerSchema):
    object = _constant("chat.completion")
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
    finish_reason = fields.String(required=True, metadata={"enum": ["stop", "length", "content_filter"]})


class CompletionAnswerSchema(_AnswerSchema):
    object = _constant("text_completion")
    choices = fields.List(fields.Nested(TextChoiceSchema), required=True)


class EmbeddingUsageSchema(Schema):
    prompt_tokens = fields.Integer(required=True)
    total_tokens = fields.Integer(required=True)


class EmbeddingRowSchema(Schema):
    object = _constant("embedding")
    index = fields.Integer(required=True)
    embedding = fields.Raw(
        required=True, metadata={"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}]}
    )


class EmbeddingAnswerSchema(Schema):
    object = _constant("list")
    data = fields.List(fields.Nested(EmbeddingRowSchema), required=True)
    model = fields.String(required=True)
    usage = fields.Nested(EmbeddingUsageSchema, required=True)
