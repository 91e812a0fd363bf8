"""The body of `/v1/responses`, and what may be asked about a response."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from app.api.schemas.job_options import JobOptions, JobOptionsSchema
from app.api.schemas.json_fields import Flag, JsonObject, JsonValue, Text, WholeNumber
from app.api.schemas.openai.chat import (
    DEFAULTS,
    MAX_VARIABLES_BYTES,
    refuse_two_grammars,
    template_variables,
    without_lengths,
)
from app.api.schemas.openai.metadata import Metadata
from app.api.schemas.openai.requests import Refused, ignored, sampling_fields, take_params
from app.api.schemas.openai.response_fields import (
    ReasoningSchema,
    ResponseToolChoice,
    ResponseToolSchema,
    TextConfigSchema,
)
from app.api.schemas.openai.response_input import ResponseInput
from app.api.schemas.openai.tools import MAX_TOOLS, Tools
from app.api.schemas.sampling import CONTRADICTIONS, MAX_LOGPROBS
from app.api.schemas.strict import StrictSchema
from app.jobs.sampling import MAX_TOKENS

LOGPROBS = "message.output_text.logprobs"
_ANY_JSON = JsonValue(max_bytes=2**30)  # the body's own limit holds
_ECHOED = (
    "background",
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
)
"""What a response repeats of its request, as it was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseBody(JobOptions):
    """echo: of the request, for the response. The rest as in `ChatBody`."""

    messages: list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    tools: Tools
    format: dict[str, Any] | None = None
    variables: dict[str, Any]
    echo: dict[str, Any]
    background: bool = False
    stream: bool = False


class ResponseStreamOptionsSchema(StrictSchema):
    include_obfuscation = Flag(allow_none=True, metadata={"description": "Ignored: nothing is obfuscated."})


class _Response(StrictSchema, JobOptionsSchema):
    also: ClassVar = {"allOf": CONTRADICTIONS}

    model = Text(allow_none=True, metadata={"description": "The served model's name, as /v1/models tells it."})
    input = ResponseInput(required=True)
    instructions = Text(allow_none=True, metadata={"description": "A system message before everything else."})
    previous_response_id = Text(
        allow_none=True,
        metadata={"description": "Go on behind that response and what led to it, as long as it is kept (`ttl`)."},
    )
    max_output_tokens = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, MAX_TOKENS),
        metadata={"description": "Tokens generated at most. Default: what the context leaves."},
    )
    background = Flag(allow_none=True, metadata={"description": "Answer at once; the response is read later."})
    stream = Flag(allow_none=True)
    stream_options = fields.Nested(ResponseStreamOptionsSchema, allow_none=True)
    text = fields.Nested(TextConfigSchema, allow_none=True)
    tools = fields.List(fields.Nested(ResponseToolSchema), allow_none=True, validate=validate.Length(max=MAX_TOOLS))
    tool_choice = ResponseToolChoice()
    parallel_tool_calls = Flag(
        allow_none=True, metadata={"description": "false: at most one call is answered with. Default: true."}
    )
    reasoning = fields.Nested(ReasoningSchema, allow_none=True)
    metadata = Metadata()
    include = fields.List(
        Text(validate=validate.Equal(LOGPROBS, error=f"Only {LOGPROBS} is served.")),
        allow_none=True,
        metadata={"description": f"Nothing but `{LOGPROBS}`."},
    )
    top_logprobs = WholeNumber(
        allow_none=True,
        validate=validate.Range(0, MAX_LOGPROBS),
        metadata={"description": f"So many of the likeliest tokens at each place; with `{LOGPROBS}` in include."},
    )
    truncation = Text(
        allow_none=True,
        validate=validate.Equal("disabled", error="Only disabled is served; leave out what is too long."),
        metadata={"enum": ["disabled", None]},
    )
    chat_template_kwargs = JsonObject(
        max_bytes=MAX_VARIABLES_BYTES,
        allow_none=True,
        metadata={"description": "What else the chat template may read, `enable_thinking` for example."},
    )
    max_tool_calls = fields.Raw(allow_none=True, metadata={"description": "Ignored: it counts built-in tools only."})

    @post_load(pass_original=True)
    def _body(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> ResponseBody:
        data = {name: value for name, value in data.items() if value is not None}
        options = {name: data.pop(name) for name in _OPTIONS if name in data}
        text, reasoning = data.get("text", {}), data.get("reasoning", {})
        tools, params = Tools.of(data), _params(data)
        refuse_two_grammars(params, tools, "text.format" if text.get("format") is not None else None)
        return ResponseBody(
            **options,
            messages=data["input"],
            params=params,
            tools=tools,
            format=text.get("format"),
            variables=template_variables(data.get("chat_template_kwargs"), reasoning.get("effort")),
            echo={name: _json(name, sent[name]) for name in _ECHOED if sent.get(name) is not None},
        )


_OPTIONS = (
    "model",
    "instructions",
    "previous_response_id",
    "background",
    "stream",
    "priority",
    "timeout",
    "expires_in",
    "ttl",
    "on_disconnect",
    "webhook",
)
_IGNORED = (
    "user",
    "safety_identifier",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)
_REFUSED = {
    "conversation": "send previous_response_id, or the whole conversation as input",
    "prompt": "there are no stored prompts here",
    "context_management": "nothing is left out of a conversation by itself",
    "moderation": "there is no moderation model here",
    "image": "this model reads text only",
    "access_programs": "there are none",
    "background_options": "send priority: low instead",
}
ResponseSchema: type[Schema] = _Response.from_dict(
    {
        **sampling_fields(without=("logprobs", "n_probs", "echo", "suffix")),
        **ignored(*_IGNORED),
        **{name: Refused(reason) for name, reason in _REFUSED.items()},
    },
    name="ResponseSchema",
)


class ResponseQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    stream = fields.Boolean(load_default=False, metadata={"description": "As server-sent events."})
    starting_after = fields.Integer(
        validate=validate.Range(min=0, max=2**53),
        metadata={"description": "Only events after the one with this `sequence_number`; with stream."},
    )


def _json(name: str, value: Any) -> Any:
    """What can be written down again. Raises ValidationError."""
    try:
        return _ANY_JSON.deserialize(value)
    except ValidationError as error:
        raise ValidationError({name: error.messages}) from None


def _params(data: dict[str, Any]) -> dict[str, Any]:
    """Raises ValidationError."""
    most, rivals = data.pop("max_output_tokens", None), data.pop("top_logprobs", None)
    if rivals and not data.get("include"):
        raise ValidationError({"top_logprobs": [f'It needs include: ["{LOGPROBS}"].']})
    params = take_params(without_lengths(data) if most is not None else data, DEFAULTS)
    if most is not None:
        params["max_tokens"] = most
    if data.get("include"):
        params["logprobs"] = rivals or 0
    return params
