"""The body of `/v1/chat/completions`."""

from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.json_fields import Flag, JsonObject, Text, WholeNumber
from app.api.schemas.openai.messages import MessageSchema
from app.api.schemas.openai.requests import (
    Refused,
    TextBody,
    TextSchema,
    ignored,
    sampling_fields,
    take_params,
    text_options,
)
from app.api.schemas.openai.response_format import ResponseFormat
from app.api.schemas.openai.tools import Tools, ToolsSchema
from app.api.schemas.sampling import MAX_LOGPROBS
from app.jobs.sampling import MAX_TOKENS

MAX_MESSAGES = 4096
MAX_VARIABLES_BYTES = 16_384
_RESERVED = ("messages", "tools", "add_generation_prompt")
DEFAULTS = {"max_tokens": MAX_TOKENS, "repeat_penalty": 1.0}
"""As OpenAI's API has it: as long as the context allows, and no penalty that nobody asked for (it spoils JSON)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBody(TextBody):
    """format: JSON Schema of the answer, None = text. variables: what else the chat template may read."""

    messages: list[dict[str, Any]]
    tools: Tools
    format: dict[str, Any] | None = None
    variables: dict[str, Any]


class _Chat(TextSchema, ToolsSchema):
    messages = fields.List(
        fields.Nested(MessageSchema), required=True, validate=validate.Length(min=1, max=MAX_MESSAGES)
    )
    max_completion_tokens = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, MAX_TOKENS),
        metadata={"description": "Tokens generated at most; goes before max_tokens. Default: what the context leaves."},
    )
    logprobs = Flag(allow_none=True, metadata={"description": "Tell each token's log probability."})
    top_logprobs = WholeNumber(
        allow_none=True,
        validate=validate.Range(0, MAX_LOGPROBS),
        metadata={"description": "And so many of the likeliest tokens at its place; needs logprobs: true."},
    )
    response_format = ResponseFormat()
    reasoning_effort = Text(allow_none=True, metadata={"description": "For chat templates that read it."})
    chat_template_kwargs = JsonObject(
        max_bytes=MAX_VARIABLES_BYTES,
        allow_none=True,
        metadata={"description": "What else the chat template may read, `enable_thinking` for example."},
    )
    modalities = fields.List(
        Text(validate=validate.Equal("text", error="Only text is served.")),
        allow_none=True,
        metadata={"description": 'Nothing but ["text"].'},
    )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> ChatBody:
        data = {name: value for name, value in data.items() if value is not None}
        tools, params = Tools.of(data), _params(data)
        refuse_two_grammars(params, tools, "response_format" if "response_format" in data else None)
        return ChatBody(
            **text_options(data),
            messages=data["messages"],
            tools=tools,
            params=params,
            format=data.get("response_format"),
            variables=template_variables(data.get("chat_template_kwargs"), data.get("reasoning_effort")),
        )


_IGNORED = (
    "user",
    "safety_identifier",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "prediction",
    "verbosity",
)
_REFUSED = {
    "audio": "this model writes text only",
    "web_search_options": "this model cannot search the web",
    "moderation": "there is no moderation model here",
}
ChatSchema: type[Schema] = _Chat.from_dict(
    {
        **sampling_fields(without=("logprobs", "n_probs", "echo", "suffix")),
        **ignored(*_IGNORED),
        **{name: Refused(reason) for name, reason in _REFUSED.items()},
    },
    name="ChatSchema",
)


def _params(data: dict[str, Any]) -> dict[str, Any]:
    """Raises ValidationError."""
    rivals = _rivals(data)
    most = data.pop("max_completion_tokens", None)
    if most is not None:
        data = without_lengths(data) | {"max_tokens": most}
    params = take_params({name: value for name, value in data.items() if name != "logprobs"}, DEFAULTS)
    if rivals is not None:
        params["logprobs"] = rivals
    return params


def without_lengths(data: dict[str, Any]) -> dict[str, Any]:
    """Without the names of `max_tokens`, before which OpenAI's own name goes."""
    return {name: value for name, value in data.items() if name not in ("max_tokens", "max_new_tokens", "n_predict")}


def refuse_two_grammars(params: dict[str, Any], tools: Tools, format_name: str | None) -> None:
    """format_name: of the field that says what the answer looks like, where there is one. Raises ValidationError."""
    other = format_name or ("tool_choice" if tools.choice.mode == "required" else None)
    for name in ("grammar", "json_schema"):
        if name in params and other:
            raise ValidationError({name: [f"{other} and {name} exclude each other; send one of them."]})


def _rivals(data: dict[str, Any]) -> int | None:
    if not data.get("logprobs"):
        if data.get("top_logprobs"):
            raise ValidationError({"top_logprobs": ["It needs logprobs: true."]})
        return None
    return int(data.get("top_logprobs", 0))


def template_variables(sent: dict[str, Any] | None, effort: str | None) -> dict[str, Any]:
    """What the chat template may read. sent: `chat_template_kwargs`. Raises ValidationError."""
    variables = dict(sent or {})
    for name in _RESERVED:
        if name in variables:
            raise ValidationError({"chat_template_kwargs": {name: ["The server sets it."]}})
    if effort is not None:
        variables.setdefault("reasoning_effort", effort)
    return variables
