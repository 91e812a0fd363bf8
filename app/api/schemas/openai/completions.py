"""The body of `/v1/completions`."""

from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError, post_load, validate

from app.api.schemas.json_fields import WholeNumber
from app.api.schemas.openai.requests import (
    MAX_CHOICES,
    TextBody,
    TextSchema,
    TextsOrTokens,
    ignored,
    sampling_fields,
    take_params,
    text_options,
)
from app.jobs.job import Text
from app.jobs.sampling import MAX_TOKENS

DEFAULTS = {"max_tokens": 16, "repeat_penalty": 1.0}
"""As OpenAI's API has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionBody(TextBody):
    """best_of: so many jobs for each prompt, of which the `n` likeliest answers are told."""

    prompts: list[Text]
    best_of: int


class _Completion(TextSchema):
    prompt = TextsOrTokens(
        shortest=0,
        most=MAX_CHOICES,
        allow_none=True,
        metadata={"description": "As it is, no chat template is applied. Default: nothing, the model just begins."},
    )
    best_of = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, MAX_CHOICES),
        metadata={"description": "Make so many answers and tell the `n` with the likeliest tokens."},
    )
    max_tokens = WholeNumber(
        allow_none=True,
        validate=validate.Range(0, MAX_TOKENS),
        metadata={"description": "Tokens generated at most, 16 by default; 0 with echo: nothing but the prompt."},
    )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> CompletionBody:
        data = {name: value for name, value in data.items() if value is not None}
        options, params = text_options(data), take_params(data, DEFAULTS)
        prompts = data.get("prompt", [""])
        best_of = data.get("best_of", options.get("n", 1))
        _check_choices(options, prompts, best_of)
        if params["max_tokens"] == 0 and not params.get("echo"):
            raise ValidationError({"max_tokens": ["0 leaves nothing to answer with; send echo: true, or more."]})
        return CompletionBody(**options, params=params, prompts=prompts, best_of=best_of)


CompletionSchema: type[Schema] = _Completion.from_dict(
    {**sampling_fields(without=("max_tokens",)), **ignored("user")}, name="CompletionSchema"
)


def _check_choices(options: dict[str, Any], prompts: list[Text], best_of: int) -> None:
    """Raises ValidationError."""
    n = options.get("n", 1)
    if best_of < n:
        raise ValidationError({"best_of": [f"Must not be less than n, {n}."]})
    if best_of > n and options.get("stream"):
        raise ValidationError({"best_of": ["Which answers are best is known at their end; not with stream: true."]})
    if len(prompts) * best_of > MAX_CHOICES:
        raise ValidationError({"prompt": [f"Prompts times answers must not be more than {MAX_CHOICES}."]})
