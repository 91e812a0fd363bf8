"""The body of `/v1/chat/completions`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import ValidationError, post_load, validate

from app.api.schemas.fields import BoundedList, Flag, TextField
from app.api.schemas.openai.messages import Messages
from app.api.schemas.openai.peers import fields_of_chat_peers, fields_of_peers, thinking_variables, with_options
from app.api.schemas.openai.prompt_end import NOT_BOTH, PromptEnd, PromptEndSchema, take_prompt_end
from app.api.schemas.openai.requests import (
    MAX_NAMES,
    NOT_IN_CONVERSATIONS,
    ConversationSchema,
    TextBody,
    TextSchema,
    max_tokens_field,
    sampling_fields,
    sent_names,
    shared_fields,
    take_params,
)
from app.api.schemas.openai.response_format import ResponseFormat
from app.api.schemas.openai.tools import Tools, ToolsSchema
from app.api.schemas.openai.unread_names import IGNORED_EVERYWHERE, IGNORED_IN_TEXTS, OF_RESPONSES, ignored, rejected
from app.jobs.sampling import CONSTRAINTS, MAX_TOKENS

DEFAULTS = {"max_tokens": MAX_TOKENS, "repeat_penalty": 1.0}
"""As in OpenAI's API: as long as the context allows, and no penalty unless the client sets one (it spoils JSON)."""
_NAMES_OF_FORMATS = ("guided_json", "structured_outputs")  # of vLLM
_RESERVED = ("messages", "tools", "add_generation_prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBody(TextBody):
    """format: JSON Schema of the output, None = text; format_name: the field that has it. variables: what else the chat
    template may read. prompt_end: `continues` and `add_generation_prompt` of the chat.
    """

    messages: list[dict[str, Any]]
    tools: Tools
    format: dict[str, Any] | None = None
    format_name: str = "response_format"
    variables: dict[str, Any]
    prompt_end: PromptEnd = field(default_factory=PromptEnd)


class ChatSchema(TextSchema, ConversationSchema, ToolsSchema, PromptEndSchema):
    example: ClassVar = {"messages": [{"role": "user", "content": "What is 2+2?"}], "max_tokens": 64}

    elsewhere: ClassVar = {
        **OF_RESPONSES,
        "instructions": "/v1/responses; here it is a message of the role system",
        "prompt": "/v1/completions",
        "input": "/v1/responses or /v1/embeddings",
    }

    also: ClassVar = {"allOf": [*TextSchema.also["allOf"], NOT_BOTH]}

    messages = Messages(required=True)
    max_completion_tokens = max_tokens_field(
        "The maximum number of tokens to generate; takes precedence over max_tokens. Default: what fits into the "
        "context."
    )
    logprobs = Flag(metadata={"description": "Report the log probability of each token."})
    response_format = ResponseFormat()
    reasoning_effort = TextField(metadata={"description": "For chat templates that read it."})
    modalities = BoundedList(
        TextField(validate=validate.Equal("text", error="Only text is supported.")),
        validate=validate.Length(max=MAX_NAMES),
        metadata={"description": 'Only ["text"].'},
    )

    class Meta(TextSchema.Meta):
        include: ClassVar = {
            **sampling_fields(without=NOT_IN_CONVERSATIONS),
            **ignored(*IGNORED_EVERYWHERE, *IGNORED_IN_TEXTS),
            **fields_of_peers(),
            **fields_of_chat_peers(),
            **rejected(
                {
                    "audio": "this model writes text only",
                    "web_search_options": "this model cannot search the web",
                    "moderation": "this server has no moderation model",
                }
            ),
        }

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> ChatBody:
        data = with_options(data)
        top_logprobs = data.get("top_logprobs", 0)
        with_logprobs = data.pop("logprobs", False)
        if top_logprobs and not with_logprobs:
            raise ValidationError({"top_logprobs": ["It needs logprobs: true."]})
        params = take_params(data, DEFAULTS, "max_completion_tokens")
        if with_logprobs:
            params["logprobs"] = top_logprobs
        names, tools = sent_names(data, "max_completion_tokens"), Tools.of(data)
        answer, format_name = answer_format(params, names, data.get("response_format"), "response_format")
        reject_two_grammars(params, names, tools, format_name if answer is not None else None)
        made = {
            "params": params,
            "sent_names": names,
            "tools": tools,
            "format": answer,
            "format_name": format_name,
            "prompt_end": take_prompt_end(data),
            "variables": thinking_variables(data) | template_variables(data, data.get("reasoning_effort")),
        }
        return ChatBody(**shared_fields(ChatBody, data) | made)


def answer_format(
    params: dict[str, Any], names: Mapping[str, str], sent: dict[str, Any] | None, name: str
) -> tuple[dict[str, Any] | None, str]:
    """Return the schema of the answer, and the name of the field that has it.

    vLLM's names of a response format mean the same as that, so their schema is taken out of `params`.

    Args:
        names: of the parameters, see `sent_names`.
        sent: the schema in the field `name`.

    Raises:
        ValidationError: both are sent.
    """
    other = names.get("params.json_schema")
    if other not in _NAMES_OF_FORMATS or "json_schema" not in params:
        return sent, name
    if sent is not None:
        raise ValidationError({other: [f"{name} and {other} exclude each other; send one of them."]})
    return params.pop("json_schema"), other


def reject_two_grammars(
    params: Mapping[str, Any], names: Mapping[str, str], tools: Tools, format_name: str | None
) -> None:
    """Reject a grammar beside something else that constrains the output.

    Args:
        names: of the parameters, see `sent_names`.
        format_name: the name of the field that gives the format of the output, if the client has sent one.

    Raises:
        ValidationError: the message names both.
    """
    other = format_name or ("tool_choice" if tools.choice.mode == "required" else None)
    for kind in CONSTRAINTS:
        if kind in params and other:
            name = names.get(f"params.{kind}", kind)
            raise ValidationError({name: [f"{other} and {name} exclude each other; send one of them."]})


def template_variables(data: Mapping[str, Any], effort: str | None) -> dict[str, Any]:
    """Return what the chat template may read beside the messages. Raises ValidationError."""
    variables = dict(data.get("chat_template_kwargs", {}))
    for name in _RESERVED:
        if name in variables:
            raise ValidationError({"chat_template_kwargs": {name: ["The server sets it."]}})
    if effort is not None:
        variables.setdefault("reasoning_effort", effort)
    return variables
