"""The body of `/v1/responses`, and the query of a response."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate

from app.api.schemas.adapters import AdapterChoice, LoraField
from app.api.schemas.fields import BoundedList, Flag, IgnoredField, IgnoredFlag, JsonValue, TextField, errors_under
from app.api.schemas.job import JobOptions
from app.api.schemas.openai.chat import DEFAULTS, answer_format, reject_two_grammars, template_variables
from app.api.schemas.openai.peers import fields_of_peers, with_options
from app.api.schemas.openai.requests import (
    MAX_NAMES,
    NOT_IN_CONVERSATIONS,
    NOT_STORED,
    ConversationSchema,
    Metadata,
    check_store,
    max_tokens_field,
    sampling_fields,
    sent_names,
    shared_fields,
    store_field,
    take_params,
)
from app.api.schemas.openai.response_format import ResponseFormat
from app.api.schemas.openai.response_input import Conversation, ResponseInput
from app.api.schemas.openai.response_tools import OfferedTool, OfferedTools, ResponseTools, chosen
from app.api.schemas.openai.tools import ToolChoiceField, Tools
from app.api.schemas.openai.unread_names import IGNORED_EVERYWHERE, ignored, rejected
from app.api.schemas.request_schema import RequestSchema
from app.api.schemas.sampling import CONTRADICTIONS

LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = (
    LOGPROBS,
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)
_ANY_JSON = JsonValue(max_bytes=2**30)  # the limit of the whole body is lower
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
    """A request for a response.

    offered: the tools as the client has named them. ignored: the paths of what is not used. echo: what the response
    repeats of the request. The rest as in `ChatBody`.
    """

    messages: list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    sent_names: dict[str, str] = field(default_factory=dict)
    lora: tuple[AdapterChoice, ...] = ()
    tools: Tools
    offered: tuple[OfferedTool, ...] = ()
    ignored: tuple[str, ...] = ()
    format: dict[str, Any] | None = None
    format_name: str = "text.format"
    variables: dict[str, Any]
    echo: dict[str, Any]
    background: bool = False
    stream: bool = False


class ResponseStreamOptionsSchema(RequestSchema):
    include_obfuscation = IgnoredFlag(metadata={"description": "Ignored: nothing is obfuscated."})


class TextConfigSchema(RequestSchema):
    format = ResponseFormat(is_flat=True)

    class Meta(RequestSchema.Meta):
        include: ClassVar = ignored("verbosity")


class ReasoningSchema(RequestSchema):
    effort = TextField(metadata={"description": "For chat templates that read it (`reasoning_effort`)."})
    summary = IgnoredField("nothing is summarised.")
    generate_summary = IgnoredField("nothing is summarised.")
    context = IgnoredField("the chat template decides which reasoning it shows.")
    mode = IgnoredField("there is one.")


class ResponseSchema(ConversationSchema):
    example: ClassVar = {"input": "What is 2+2?", "max_output_tokens": 64}

    elsewhere: ClassVar = {
        "messages": "/v1/chat/completions; here it is input",
        "functions": "/v1/chat/completions; here it is tools",
        "function_call": "/v1/chat/completions; here it is tool_choice",
        "modalities": "/v1/chat/completions",
        "n": "/v1/chat/completions and /v1/completions",
        "best_of": "/v1/completions",
        "response_format": "/v1/chat/completions; here it is text.format",
    }

    also: ClassVar = {"allOf": [*CONTRADICTIONS, *NOT_STORED]}

    input = ResponseInput()
    instructions = TextField(metadata={"description": "A system message before all others."})
    previous_response_id = TextField(
        metadata={"description": "Continue the conversation of that response, as long as it is kept (`ttl`)."}
    )
    max_output_tokens = max_tokens_field(
        "The maximum number of tokens to generate; takes precedence over other names. Default: what fits into the "
        "context."
    )
    lora = LoraField()
    store = store_field()
    background = Flag(metadata={"description": "Answer at once; the client reads the response later."})
    stream = Flag()
    stream_options = fields.Nested(ResponseStreamOptionsSchema)
    text = fields.Nested(TextConfigSchema)
    tools = ResponseTools()
    tool_choice = ToolChoiceField(is_flat=True)
    reasoning = fields.Nested(ReasoningSchema)
    metadata = Metadata()
    include = BoundedList(
        TextField(validate=validate.OneOf(INCLUDABLE)),
        validate=validate.Length(max=MAX_NAMES),
        metadata={
            "description": f"`{LOGPROBS}`, which top_logprobs needs; the others are of things that do not occur."
        },
    )
    truncation = TextField(
        validate=validate.Equal("disabled", error="Only disabled is supported; send a shorter conversation."),
        metadata={"enum": ["disabled", None]},
    )
    max_tool_calls = IgnoredField("it limits built-in tools only.")

    class Meta(ConversationSchema.Meta):
        include: ClassVar = {
            **sampling_fields(without=NOT_IN_CONVERSATIONS),
            **ignored(*IGNORED_EVERYWHERE, "client_metadata"),
            **fields_of_peers(),
            **rejected(
                {
                    "conversation": "send previous_response_id, or the whole conversation as input",
                    "prompt": "this server stores no prompts",
                    "context_management": "the server never shortens a conversation",
                    "moderation": "this server has no moderation model",
                    "image": "this model reads text only",
                    "access_programs": "this server has none",
                    "background_options": "send priority: low instead",
                }
            ),
        }

    @post_load(pass_original=True)
    def _body(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> ResponseBody:
        check_store(data)
        data = with_options(data)
        top_logprobs, with_logprobs = data.get("top_logprobs", 0), LOGPROBS in data.get("include", ())
        if top_logprobs and not with_logprobs:
            raise ValidationError({"top_logprobs": [f'It needs include: ["{LOGPROBS}"].']})
        params = take_params(data, DEFAULTS, "max_output_tokens")
        if with_logprobs:
            params["logprobs"] = top_logprobs
        conversation, text_format = data["input"], data.get("text", {}).get("format")
        offered = data.get("tools", OfferedTools()) + conversation.tools
        tools = _tools(data, offered)
        names = sent_names(data, "max_output_tokens")
        answer, format_name = answer_format(params, names, text_format, "text.format")
        reject_two_grammars(params, names, tools, format_name if answer is not None else None)
        made = {
            "messages": _messages(data, conversation),
            "params": params,
            "sent_names": names,
            "tools": tools,
            "offered": offered.tools,
            "ignored": offered.ignored,
            "format": answer,
            "format_name": format_name,
            "variables": template_variables(data, data.get("reasoning", {}).get("effort")),
            "echo": {name: _json(name, sent[name]) for name in _ECHOED if name in sent},
        }
        return ResponseBody(**shared_fields(ResponseBody, data) | made)


def _tools(data: dict[str, Any], offered: OfferedTools) -> Tools:
    choice = {"tool_choice": chosen(data["tool_choice"], offered)} if "tool_choice" in data else {}
    return Tools.of({**data, **choice, "tools": [one.tool for one in offered.tools]})


def _messages(data: dict[str, Any], conversation: Conversation) -> list[dict[str, Any]]:
    """Return the messages; at least one, of the user, where the request has nothing to respond to."""
    is_empty = not conversation.messages and "instructions" not in data and "previous_response_id" not in data
    return [{"role": "user", "content": ""}] if is_empty else conversation.messages


class ResponseQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    stream = fields.Boolean(load_default=False, metadata={"description": "Answer with server-sent events."})
    starting_after = fields.Integer(
        validate=validate.Range(min=0, max=2**53),
        metadata={"description": "Only events after the one with this `sequence_number`; with stream."},
    )


def _json(name: str, value: Any) -> Any:
    """Return what can be written as JSON again. Raises ValidationError."""
    with errors_under(name):
        return _ANY_JSON.deserialize(value)
