"""The body of `/v1/completions`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import ValidationError, post_load, validate

from app.api.schemas.fields import WholeNumber
from app.api.schemas.openai.chat import reject_two_grammars
from app.api.schemas.openai.peers import fields_of_completion_peers, fields_of_peers, with_options
from app.api.schemas.openai.requests import (
    MAX_CHOICES,
    TextBody,
    TextSchema,
    TextsOrTokens,
    is_one,
    max_tokens_field,
    sampling_fields,
    sent_names,
    shared_fields,
    take_params,
)
from app.api.schemas.openai.response_format import ResponseFormat
from app.api.schemas.openai.tools import Tools
from app.api.schemas.openai.unread_names import IGNORED_EVERYWHERE, IGNORED_IN_TEXTS, OF_RESPONSES, ignored
from app.jobs.job import Text

DEFAULTS = {"max_tokens": 16, "repeat_penalty": 1.0}
"""As in OpenAI's API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionBody(TextBody):
    """best_of: the number of jobs for each prompt; the response has the `n` most likely of their texts. is_one: the
    prompt was sent as one text or its tokens, not as a list of these.
    """

    prompts: list[Text]
    is_one: bool = True
    best_of: int


class CompletionSchema(TextSchema):
    example: ClassVar = {"prompt": "The capital of France is", "max_tokens": 32}

    elsewhere: ClassVar = {
        **OF_RESPONSES,
        **dict.fromkeys(
            ("messages", "tools", "tool_choice", "functions", "function_call", "reasoning_effort"),
            "/v1/chat/completions",
        ),
        "instructions": "/v1/responses",
        "input": "/v1/responses or /v1/embeddings",
    }

    prompt = TextsOrTokens(
        shortest=0,
        most=MAX_CHOICES,
        metadata={"description": "Used as it is: no chat template is applied. Default: empty, the model just begins."},
    )
    best_of = WholeNumber(
        validate=validate.Range(1, MAX_CHOICES),
        metadata={"description": "Generate this number of texts and return the `n` most likely ones."},
    )
    max_tokens = max_tokens_field(
        "The maximum number of tokens to generate, by default 16; 0 with echo: only the prompt.", least=0
    )
    response_format = ResponseFormat()

    class Meta(TextSchema.Meta):
        include: ClassVar = {
            **sampling_fields(without=("max_tokens",)),
            **ignored(*IGNORED_EVERYWHERE, *IGNORED_IN_TEXTS),
            **fields_of_peers(),
            **fields_of_completion_peers(),
        }

    @post_load(pass_original=True)
    def _body(self, data: dict[str, Any], sent: dict[str, Any], **kwargs: Any) -> CompletionBody:
        data = with_options(data)
        params, prompts, n = take_params(data, DEFAULTS), data.get("prompt", [""]), data.get("n", 1)
        best_of = data.get("best_of", n)
        if best_of < n:
            raise ValidationError({"best_of": [f"Must not be less than n, {n}."]})
        if best_of > n and data.get("stream"):
            raise ValidationError(
                {"best_of": ["Must not be more than n with stream: true: only ends can be compared."]}
            )
        if len(prompts) * best_of > MAX_CHOICES:
            raise ValidationError({"prompt": [f"Prompts times answers must not be more than {MAX_CHOICES}."]})
        if params["max_tokens"] == 0 and not params.get("echo"):
            raise ValidationError({"max_tokens": ["0 leaves nothing to answer with; send echo: true, or more."]})
        names = sent_names(data)
        if (answer := data.get("response_format")) is not None:
            reject_two_grammars(params, names, Tools(), "response_format")
            params["json_schema"], names["params.json_schema"] = answer, "response_format"
        made = {
            "params": params,
            "sent_names": names,
            "prompts": prompts,
            "is_one": "prompt" not in data or is_one(sent["prompt"]),
            "best_of": best_of,
        }
        return CompletionBody(**shared_fields(CompletionBody, data) | made)
