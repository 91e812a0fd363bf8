"""What the bodies of OpenAI's endpoints have in common: the model, sampling parameters, unsupported names."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api.schemas.adapters import AdapterChoice, LoraField
from app.api.schemas.constraints import GUIDED_FIELDS
from app.api.schemas.fields import (
    BoundedDict,
    Flag,
    IgnoredFlag,
    JsonObject,
    TextField,
    TokenCount,
    WholeNumber,
    errors_under,
)
from app.api.schemas.job import JobOptions, JobOptionsSchema
from app.api.schemas.request_schema import RequestSchema
from app.api.schemas.sampling import (
    ALIASES,
    CONTRADICTIONS,
    MAX_TOKEN_ID,
    RANDOM_SEED,
    SAMPLING_FIELDS,
    canonical_params,
)
from app.jobs.job import Text as TextOrTokens
from app.jobs.principal import MAX_LABEL
from app.jobs.sampling import CONSTRAINTS, MAX_LOGPROBS, MAX_TOKENS

MAX_CHOICES = 128  # of one request, each a job; OpenAI's limit of `n`
MAX_NAMES = 32  # in a list of the few that exist
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # of metadata, as in OpenAI's API
_NEITHER = "Must be a text, a list of token ids, or a list of either."
_SEEDS = 2**32  # llama.cpp's samplers take 32 bits; OpenAI's clients may send 64, and a sign
NOT_IN_CONVERSATIONS = ("logprobs", "n_probs", "echo", "suffix")
"""Sampling parameters that a conversation does not have, or not under this name."""


def sampling_fields(without: Collection[str]) -> dict[str, fields.Field[Any]]:
    """Return the whole vocabulary of `params`, to stand beside the other names of a body."""
    fields_of_params = {name: made for name, made in SAMPLING_FIELDS.items() if name not in without}
    seed = WholeNumber(
        validate=validate.Range(-(2**63), 2**63 - 1),
        metadata={
            "description": "Same seed, same prompt, same parameters: same text. Its last 32 bits count. -1: a random "
            "one."
        },
    )
    return fields_of_params | {"seed": seed}


def take_params(data: Mapping[str, Any], defaults: dict[str, Any], preferred: str | None = None) -> dict[str, Any]:
    """Return the sampling parameters among the loaded data, over `defaults`.

    Args:
        preferred: OpenAI's own name of the maximum number of tokens, which takes precedence over every other name.

    Raises:
        ValidationError: two of them exclude each other.
    """
    given = _given(data, preferred)
    if given.get("seed", RANDOM_SEED) != RANDOM_SEED:
        given["seed"] %= _SEEDS
    return defaults | canonical_params(given)


def sent_names(data: Mapping[str, Any], preferred: str | None = None) -> dict[str, str]:
    """Return the names that the client has used for parameters, by the worker's paths. Arguments as `take_params`."""
    given = _given(data, preferred)
    names = {f"params.{ALIASES[name]}": name for name in given if name in ALIASES}
    return names | {f"params.{kind}": name for name in GUIDED_FIELDS if name in given for kind in CONSTRAINTS}


def _given(data: Mapping[str, Any], preferred: str | None) -> dict[str, Any]:
    given = {name: value for name, value in data.items() if name in SAMPLING_FIELDS and value is not None}
    if preferred in given:
        others = [name for name in given if ALIASES.get(name, name) == ALIASES[preferred] and name != preferred]
        given = {name: value for name, value in given.items() if name not in others}
    return given


def shared_fields(body: type[JobOptions], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loaded fields that `body` has under the same name."""
    return {made.name: data[made.name] for made in dataclasses.fields(body) if made.name in data}


class ModelRequestSchema(JobOptionsSchema):
    """The fields of every endpoint of OpenAI's API that makes jobs."""

    model = TextField(metadata={"description": "The name of the served model, as in /v1/models."})
    user = TextField(
        metadata={
            "description": f"A label of the request, by which usage can be grouped: its first {MAX_LABEL} characters. "
            "The header `OpenAI-Project` wins."
        }
    )


def store_field() -> Flag:
    return Flag(
        metadata={
            "description": "false: the job is deleted as soon as the client has the response, and cannot be read after "
            "that. Default: it is kept for its `ttl`."
        }
    )


NOT_STORED: list[dict[str, Any]] = [
    {"not": {"required": ["store", name], "properties": {"store": {"const": False}, name: value}}}
    for name, value in (("webhook", {"type": "object"}), ("background", {"const": True}))
]
"""What `check_store` enforces, as JSON Schema for the documentation."""


def check_store(data: Mapping[str, Any]) -> None:
    """Raise ValidationError for a response that is read later, though it is not to be stored."""
    for name in ("background", "webhook"):
        if data.get("store") is False and data.get(name):
            raise ValidationError({"store": [f"Not false with {name}, which reads the response later; leave one out."]})


class StreamOptionsSchema(RequestSchema):
    include_usage = Flag(metadata={"description": "Report the usage in a last chunk."})
    include_obfuscation = IgnoredFlag(metadata={"description": "Ignored: nothing is obfuscated."})
    continuous_usage_stats = IgnoredFlag(metadata={"description": "Ignored: the usage comes in a last chunk."})


def max_tokens_field(description: str, *, least: int = 1) -> TokenCount:
    """Return the field of the maximum number of tokens, under one of OpenAI's names."""
    about = {"description": f"{description} More than fit into the context, or -1: as many as fit."}
    return TokenCount(least=least, most=MAX_TOKENS, minus_one=MAX_TOKENS, metadata=about)


_STREAMED = {"required": ["stream"], "properties": {"stream": {"const": True}}}
_OPTIONS_OF_STREAMS = {"anyOf": [{"properties": {"stream_options": {"type": "null"}}}, _STREAMED]}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBody(JobOptions):
    """params: under canonical names. sent_names: see `sent_names`."""

    model: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    sent_names: dict[str, str] = field(default_factory=dict)
    lora: tuple[AdapterChoice, ...] = ()
    n: int = 1
    stream: bool = False
    stream_options: dict[str, bool] = field(default_factory=dict)

    @property
    def include_usage(self) -> bool:
        """Whether the last chunk of a stream reports the usage."""
        return self.stream_options.get("include_usage", False)


class TextSchema(ModelRequestSchema):
    """The fields that `/v1/completions` and `/v1/chat/completions` have in common."""

    also: ClassVar = {"allOf": [*CONTRADICTIONS, _OPTIONS_OF_STREAMS, *NOT_STORED]}

    n = WholeNumber(
        validate=validate.Range(1, MAX_CHOICES),
        metadata={"description": "The number of choices for each prompt; each is a job of its own."},
    )
    lora = LoraField()
    stream = Flag()
    stream_options = fields.Nested(StreamOptionsSchema)
    store = store_field()

    @validates_schema
    def _check_options(self, data: dict[str, Any], **kwargs: Any) -> None:
        check_store(data)
        if "stream_options" in data and not data.get("stream"):
            raise ValidationError({"stream_options": ["Only with stream: true."]})


class ConversationSchema(ModelRequestSchema):
    """The fields that `/v1/chat/completions` and `/v1/responses` have in common."""

    parallel_tool_calls = Flag(metadata={"description": "false: the output has at most one call. Default: true."})
    top_logprobs = WholeNumber(
        validate=validate.Range(0, MAX_LOGPROBS),
        metadata={"description": "Report this number of the most likely tokens at each position, with logprobs."},
    )
    chat_template_kwargs = JsonObject(
        max_bytes=16_384,
        metadata={"description": "Other variables for the chat template, for example `enable_thinking`."},
    )


class Metadata(BoundedDict):
    """At most 16 texts, by name."""

    def __init__(self) -> None:
        super().__init__(
            keys=TextField(validate=validate.Length(max=MAX_KEY)),
            values=TextField(validate=validate.Length(max=MAX_VALUE)),
            validate=validate.Length(max=MAX_PAIRS, error=f"Must not have more than {MAX_PAIRS} pairs."),
            metadata={"maxProperties": MAX_PAIRS},
        )


class TextsOrTokens(fields.Field[list[TextOrTokens]]):
    """A text, its token ids, or a list of either; loaded as a list."""

    def __init__(self, *, shortest: int, most: int, **kwargs: Any) -> None:
        text: dict[str, Any] = {"type": "string", "minLength": shortest}
        token = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
        tokens: dict[str, Any] = {"type": "array", "items": token, "minItems": 1}
        many = [{"type": "array", "items": one, "minItems": 1, "maxItems": most} for one in (text, tokens)]
        null = [] if kwargs.get("required") else [{"type": "null"}]
        metadata = {**kwargs.pop("metadata", {}), "anyOf": [text, tokens, *many, *null]}
        super().__init__(metadata=metadata, **kwargs)
        self._text = TextField(validate=validate.Length(min=shortest))
        self._most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[TextOrTokens]:
        if isinstance(value, str):
            return [self._one(value)]
        if not isinstance(value, list) or not value:
            raise ValidationError(_NEITHER)
        if is_one(value):
            return [token_ids(value)]
        if len(value) > self._most:
            raise ValidationError(f"Must not have more than {self._most} items.")
        items: list[TextOrTokens] = []
        for index, item in enumerate(value):
            with errors_under(index):
                items.append(self._one(item))
        return items

    def _one(self, item: Any) -> TextOrTokens:
        if isinstance(item, list) and _begins_with_number(item):
            return token_ids(item)
        if not isinstance(item, str):
            raise ValidationError(_NEITHER)
        return self._text.deserialize(item) or ""


def is_one(value: Any) -> bool:
    """Return whether the value of `TextsOrTokens` is one text, or its token ids."""
    return isinstance(value, str) or (isinstance(value, list) and _begins_with_number(value))


def _begins_with_number(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], int | float) and not isinstance(values[0], bool)


def token_ids(values: list[Any]) -> tuple[int, ...]:
    """Return token ids; 5.0 is a whole number in JSON Schema, true is not. Raises ValidationError by the index."""
    for index, value in enumerate(values):
        is_whole = type(value) is int or (isinstance(value, float) and value.is_integer())
        if not is_whole or not 0 <= value <= MAX_TOKEN_ID:
            raise ValidationError({index: [f"Must be a token id, a whole number from 0 to {MAX_TOKEN_ID}."]})
    return tuple(map(int, values))
