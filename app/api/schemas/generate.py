"""The body of `/generate` and `/agenerate`."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import EXCLUDE, ValidationError, fields, post_load, pre_load, validate, validates_schema

from app.api.schemas.adapters import AdapterChoice
from app.api.schemas.constraints import GUIDED_FIELDS
from app.api.schemas.fields import Flag, TextField
from app.api.schemas.job import JobOptions, JobOptionsSchema
from app.api.schemas.openai.messages import Messages
from app.api.schemas.openai.prompt_end import NOT_BOTH, PromptEnd, PromptEndSchema, take_prompt_end
from app.api.schemas.sampling import ALIASES, SamplingSchema
from app.jobs.sampling import CONSTRAINTS

_PARAMETERS = frozenset(SamplingSchema().load_fields)
_CHATS, _MESSAGES, _PARAMS = (
    "Send it to /v1/chat/completions.",
    "Send messages instead.",
    "Put its members into params.",
)
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("response_format", "format"), "Send json_schema, or response_format to /v1/chat/completions."),
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call", "chat_template_kwargs"), _CHATS),
    **dict.fromkeys(("reasoning_effort", "reasoning", "thinking", "think", "enable_thinking"), _CHATS),
    **dict.fromkeys(("n", "best_of"), "Send it to /v1/completions."),
    **dict.fromkeys(("system", "template"), _MESSAGES),
    **dict.fromkeys(("options", "parameters", "sampling_params"), _PARAMS),
}
"""Names of OpenAI's API and of other servers that would change the output, and what to do instead."""
_ASKS_NOTHING: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateBody(JobOptions):
    """Either `messages` or a `prompt`. prompt_end: see `ChatBody`. sent_names: the paths by which the client has sent
    parameters, by the worker's paths. stream: None = as `generate.agenerate` says.
    """

    prompt: str = ""
    messages: list[dict[str, Any]] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    lora: tuple[AdapterChoice, ...] = ()
    sent_names: dict[str, str] = field(default_factory=dict)
    details: bool = False
    stream: bool | None = None
    prompt_end: PromptEnd = field(default_factory=PromptEnd)


class GenerateSchema(JobOptionsSchema, PromptEndSchema):
    example: ClassVar = {"prompt": "The capital of France is", "params": {"max_tokens": 32}}

    class Meta(JobOptionsSchema.Meta):
        unknown = EXCLUDE  # llm-api-python sends more beside the prompt, clients of other servers their own names

    @staticmethod
    def also(documented: dict[str, Any]) -> dict[str, Any]:
        """Document that a prompt or messages are required, and that messages beside a prompt are not validated."""
        messages = documented["properties"]["messages"]
        return {
            **NOT_BOTH,
            "properties": documented["properties"] | {"messages": {"description": messages["description"]}},
            "anyOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {
                    "required": ["messages"],
                    "properties": {"prompt": {"type": "null"}, "messages": messages | {"type": "array"}},
                },
            ],
        }

    prompt = TextField(
        validate=validate.Length(min=1, error="Must not be empty."),
        metadata={"description": "The text to continue, as it is: no chat template is applied."},
    )
    messages = Messages(
        metadata={
            "description": "A conversation instead of a prompt, rendered with the model's chat template. "
            "Ignored beside a prompt: `llm-api-python` sends both."
        },
    )
    params = fields.Nested(
        SamplingSchema,
        metadata={"description": "The sampling parameters. Default: those of the model family."},
    )
    details = Flag(metadata={"description": "/generate: respond with the job object."})
    stream = Flag(
        metadata={
            "description": "/agenerate: respond with server-sent events, or, for false, with the job. Default: what "
            "the `Accept` header prefers, else as the server's `generate.agenerate`."
        }
    )

    def without_unknown(self, data: Mapping[str, Any], more: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
        """Return the data without unknown names, beside `params` and in it, and the paths of these names.

        Args:
            more: parameters that count as unknown.
        """
        known = {name: value for name, value in data.items() if self._is_read(name) and name not in more}
        dropped = [name for name in data if name not in known]
        params = known.get("params")
        if isinstance(params, Mapping):
            known["params"] = {name: params[name] for name in params if name in _PARAMETERS and name not in more}
            dropped += [f"params.{name}" for name in params if name not in known["params"]]
        return known, dropped

    def _is_read(self, name: str) -> bool:
        return name in self.load_fields or name in _PARAMETERS

    @pre_load
    def _ignore_messages_beside_a_prompt(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if name != "messages"} if "prompt" in data else data

    @pre_load
    def _take_params_beside(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Read a parameter that stands beside `params` as one of them.

        Reject a name that is nearly a known one, or that asks for something else.
        """
        errors = {name: [self._unknown(name)] for name in self._nearly_known(data)}
        asked = [name for name in data if name in _ELSEWHERE and _asks(name, data[name])]
        errors |= {name: [f"Not read here. {_ELSEWHERE[name]}"] for name in asked}
        params = data.get("params", {})
        beside = {name: value for name, value in data.items() if name in _PARAMETERS and value is not None}
        if beside and isinstance(params, dict):
            twice = [name for name in beside if params.get(name) not in (None, beside[name])]
            errors |= {name: ["Stands beside params and in it, with another value; send one."] for name in twice}
            data = {name: value for name, value in data.items() if name not in beside} | {"params": params | beside}
        if errors:
            raise ValidationError(errors)
        return data

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:
        """Name a parameter by the place where the client has sent it: beside `params`, or in it."""
        super().handle_error(error, data, **kwargs)
        messages = error.messages
        inside = messages.get("params") if isinstance(messages, dict) else None
        if not isinstance(messages, dict) or not isinstance(inside, dict) or not isinstance(data, Mapping):
            return
        sent = data.get("params") or {}
        for name in [name for name in inside if name in data and name in _PARAMETERS and name not in sent]:
            messages[name] = inside.pop(name)
        if not inside:
            del messages["params"]

    def _nearly_known(self, data: dict[str, Any]) -> list[str]:
        """Return the unknown names that are nearly known: of the few that `load` leaves."""
        return [name for name in data if name not in self._known and self.nearest(name) is not None]

    def _unknown(self, name: str) -> str:
        near = self.nearest(name)
        if near is not None and near in _ELSEWHERE:
            return f"Unknown parameter. {near} is not read here. {_ELSEWHERE[near]}"
        return super()._unknown(name)

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return super()._known | _PARAMETERS | _ELSEWHERE.keys()

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def _require_one(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> None:
        if "prompt" not in sent and "messages" not in sent:
            raise ValidationError({"prompt": ["Send a prompt, or messages."]})

    @post_load(pass_original=True)
    def _body(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> GenerateBody:
        prompt_end = take_prompt_end(data)
        lora = data.get("params", {}).pop("lora", ())
        names = _sent_names(sent, "") | _sent_names(sent.get("params") or {}, "params.")
        return GenerateBody(**data, lora=lora, prompt_end=prompt_end, sent_names=names)


def _sent_names(sent: Mapping[str, Any], prefix: str) -> dict[str, str]:
    given = [name for name in sent if name in _PARAMETERS and sent[name] is not None]
    names = {f"params.{ALIASES.get(name, name)}": f"{prefix}{name}" for name in given}
    return names | {
        f"params.{kind}": f"{prefix}{name}" for name in GUIDED_FIELDS if name in given for kind in CONSTRAINTS
    }


def _asks(name: str, value: Any) -> bool:
    """Return whether a name of `_ELSEWHERE` with this value would change the output."""
    return value not in _ASKS_NOTHING and not (name in ("n", "best_of") and value == 1)
