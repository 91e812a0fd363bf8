"""What the bodies of OpenAI's endpoints have in common: sampling parameters beside other names, and ignored ones."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api.schemas.job_options import JobOptions, JobOptionsSchema
from app.api.schemas.json_fields import Flag, RealNumber, Text, WholeNumber
from app.api.schemas.sampling import CONTRADICTIONS, SAMPLING_FIELDS, canonical_params
from app.api.schemas.strict import StrictSchema
from app.jobs.job import Text as TextOrTokens

MAX_CHOICES = 128  # of one request, each a job; OpenAI's limit of `n`
MAX_TOKEN_ID = 2**31 - 1
_SEEDS = 2**32  # llama.cpp's samplers take 32 bits; OpenAI's clients may send 64, and a sign
IGNORED = {
    "user": "No users are told apart.",
    "safety_identifier": "No users are told apart.",
    "metadata": "Nothing is filed under it.",
    "store": "Every request is a job, kept for `ttl`.",
    "service_tier": "There is one tier; see `priority`.",
    "prompt_cache_key": "Prompts that begin alike share their beginning by themselves.",
    "prompt_cache_options": "Prompts that begin alike share their beginning by themselves.",
    "prompt_cache_retention": "Prompts that begin alike share their beginning by themselves.",
    "prediction": "It could only make the answer faster.",
    "verbosity": "Say it in a message.",
}


def ignored(*names: str) -> dict[str, fields.Field[Any]]:
    return {name: fields.Raw(allow_none=True, metadata={"description": f"Ignored. {IGNORED[name]}"}) for name in names}


class Refused(fields.Field[None]):
    """A name of OpenAI's that is not served; null is no harm."""

    def __init__(self, reason: str) -> None:
        super().__init__(allow_none=True, metadata={"enum": [None], "description": f"Not served: {reason}."})
        self._reason = reason

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> None:
        raise ValidationError(f"{self.name} is not served: {self._reason}.")


class StreamOptionsSchema(StrictSchema):
    include_usage = Flag(allow_none=True, metadata={"description": "A last chunk tells the usage."})
    include_obfuscation = Flag(allow_none=True, metadata={"description": "Ignored: nothing is obfuscated."})


_STREAMED = {"required": ["stream"], "properties": {"stream": {"const": True}}}
_OPTIONS_OF_STREAMS = {"anyOf": [{"properties": {"stream_options": {"type": "null"}}}, _STREAMED]}


def sampling_fields(without: Collection[str] = ()) -> dict[str, fields.Field[Any]]:
    """The whole vocabulary of `params`, to stand beside the other names of a body."""
    found = {name: made for name, made in SAMPLING_FIELDS.items() if name not in without}
    return found | {
        "seed": WholeNumber(
            allow_none=True,
            validate=validate.Range(-(2**63), 2**63 - 1),
            metadata={"description": "Same seed, same prompt, same parameters: same text. Its last 32 bits count."},
        ),
        "temperature": RealNumber(
            allow_none=True, validate=validate.Range(0, 100), metadata={"description": "0 = greedy."}
        ),
    }


class TextSchema(StrictSchema, JobOptionsSchema):
    """Of `/v1/completions` and `/v1/chat/completions`."""

    also: ClassVar = {"allOf": [*CONTRADICTIONS, _OPTIONS_OF_STREAMS]}

    model = Text(allow_none=True, metadata={"description": "The served model's name, as /v1/models tells it."})
    n = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, MAX_CHOICES),
        metadata={"description": "Answers to each prompt; each is a job of its own."},
    )
    stream = Flag(allow_none=True)
    stream_options = fields.Nested(StreamOptionsSchema, allow_none=True)

    @validates_schema
    def _stream_options(self, data: dict[str, Any], **kwargs: Any) -> None:
        if data.get("stream_options") is not None and not data.get("stream"):
            raise ValidationError({"stream_options": ["Only with stream: true."]})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBody(JobOptions):
    """params: canonical. include_usage: a stream's last chunk tells it."""

    model: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    n: int = 1
    stream: bool = False
    include_usage: bool = False


def text_options(data: dict[str, Any]) -> dict[str, Any]:
    """Takes what `TextBody` has besides `params` out of the loaded data."""
    names = ("model", "n", "stream", "priority", "timeout", "expires_in", "ttl", "on_disconnect", "webhook")
    options = {name: data.pop(name) for name in names if name in data}
    stream_options = data.pop("stream_options", None) or {}
    return options | {"include_usage": bool(stream_options.get("include_usage"))}


def take_params(data: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameters among the loaded data, over `defaults`. Raises ValidationError."""
    given = {name: value for name, value in data.items() if name in SAMPLING_FIELDS}
    if given.get("seed") is not None:
        given["seed"] %= _SEEDS
    return defaults | canonical_params(given)


class TextsOrTokens(fields.Field[list[TextOrTokens]]):
    """A text, its token ids, or a list of either; loaded as a list."""

    def __init__(self, *, shortest: int, most: int, **kwargs: Any) -> None:
        text: dict[str, Any] = {"type": "string", "minLength": shortest}
        token = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
        tokens: dict[str, Any] = {"type": "array", "items": token, "minItems": 1}
        many = [{"type": "array", "items": one, "minItems": 1, "maxItems": most} for one in (text, tokens)]
        nothing = [{"type": "null"}] if kwargs.get("allow_none") else []
        metadata = {**kwargs.pop("metadata", {}), "anyOf": [text, tokens, *many, *nothing]}
        super().__init__(metadata=metadata, **kwargs)
        self._text = Text(validate=validate.Length(min=shortest))
        self._most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[TextOrTokens]:
        if isinstance(value, str):
            return [self._one_text(value)]
        if not isinstance(value, list) or not value:
            raise ValidationError("Must be a text, a list of token ids, or a list of either.")
        if all(_is_token(item) for item in value):
            return [tuple(map(int, value))]
        if len(value) > self._most:
            raise ValidationError(f"Must not hold more than {self._most}.")
        return [self._one(index, item) for index, item in enumerate(value)]

    def _one(self, index: int, item: Any) -> TextOrTokens:
        try:
            if isinstance(item, list) and item and all(_is_token(token) for token in item):
                return tuple(map(int, item))
            return self._one_text(item)
        except ValidationError as error:
            raise ValidationError({str(index): error.messages}) from None

    def _one_text(self, text: Any) -> str:
        return self._text.deserialize(text) or ""


def _is_token(value: Any) -> bool:
    """5.0 is a whole number to JSON Schema; true is none."""
    is_whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return is_whole and 0 <= value <= MAX_TOKEN_ID
