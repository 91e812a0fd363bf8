"""`params` of a request: the vocabulary of `app.jobs.sampling`, each library's own spelling accepted as an alias.

null means "not given". What comes out holds canonical names only, and only what the client has set.
"""

import copy
import itertools
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.json_fields import Flag, JsonObject, RealNumber, Text, TextOrTexts, WholeNumber, no_nul
from app.api.schemas.strict import StrictSchema
from app.api.schemas.transformers_params import TRANSFORMERS_PARAMS
from app.jobs.sampling import MAX_TOKENS

MAX_SEED = 2**32 - 1  # llama.cpp's samplers take 32 bits
MAX_LOGPROBS = 20  # rivals per token, as OpenAI's API has it
MAX_STOPS, MAX_STOP_LENGTH = 16, 1024  # a stop string is searched for after every token
MAX_BIASES = 1024
MAX_GRAMMAR_BYTES = 65_536  # compiled once per request, in the worker

ALIASES = {
    "max_new_tokens": "max_tokens",  # transformers
    "n_predict": "max_tokens",  # llama.cpp
    "num_predict": "max_tokens",  # Ollama
    "temp": "temperature",  # llama.cpp
    "typical": "typical_p",  # llama.cpp's old name
    "typ_p": "typical_p",  # llama.cpp
    "repetition_penalty": "repeat_penalty",  # transformers
    "penalty_last_n": "repeat_last_n",  # llama.cpp
    "n_probs": "logprobs",  # llama-server
    "min_new_tokens": "min_length",  # transformers
    "min_tokens": "min_length",  # vLLM
    "mirostat_mode": "mirostat",  # llama-cpp-python
    "stop_strings": "stop",  # transformers
    "stop_sequences": "stop",  # TGI's client
}


def _real(least: float, most: float, about: str) -> RealNumber:
    return RealNumber(allow_none=True, validate=validate.Range(least, most), metadata={"description": about})


def _whole(least: int, most: int, about: str) -> WholeNumber:
    return WholeNumber(allow_none=True, validate=validate.Range(least, most), metadata={"description": about})


def _text(longest: int, about: str) -> Text:
    about_it = {"description": about, "pattern": "^[^\\u0000]*$"}
    return Text(allow_none=True, validate=(validate.Length(max=longest), no_nul), metadata=about_it)


def _not_too_many(biases: dict[str, float]) -> None:
    if len(biases) > MAX_BIASES:
        raise ValidationError(f"Must not hold more than {MAX_BIASES} token ids.")


_VOCABULARY: dict[str, fields.Field[Any]] = {
    "max_tokens": _whole(1, MAX_TOKENS, "Tokens generated at most."),
    "max_length": _whole(1, MAX_TOKENS, "Tokens of prompt and completion together at most; bounds max_tokens."),
    "min_length": _whole(0, MAX_TOKENS, "Tokens generated before the model may end its answer."),
    "temperature": _real(0, 100, "0 = greedy: always the likeliest token."),
    "top_k": _whole(0, MAX_TOKENS, "Choose among the k likeliest tokens; 0 = off."),
    "top_p": _real(0, 1, "Choose among the likeliest tokens that hold this share of probability; 1 = off."),
    "min_p": _real(0, 1, "Drop tokens less likely than this share of the likeliest one's probability; 0 = off."),
    "typical_p": _real(0, 1, "Locally typical sampling; 1 = off."),
    "repeat_penalty": _real(0.01, 10, "Divides the logits of recent tokens; 1 = off."),
    "repeat_last_n": _whole(-1, MAX_TOKENS, "Window of the penalties in tokens; 0 = off, -1 = the context."),
    "frequency_penalty": _real(-10, 10, "Subtracted from a token's logit per recent occurrence."),
    "presence_penalty": _real(-10, 10, "Subtracted from a token's logit once it has occurred."),
    "stop": TextOrTexts(
        longest=MAX_STOP_LENGTH,
        most=MAX_STOPS,
        allow_none=True,
        metadata={"description": "Strings that end the answer; they are not part of it."},
    ),
    "seed": _whole(0, MAX_SEED, "Same seed, same prompt, same parameters: same text."),
    "logprobs": _whole(0, MAX_LOGPROBS, "Report each token's log probability and this many rivals."),
    "echo": Flag(allow_none=True, metadata={"description": "Put the prompt before the answer."}),
    "suffix": _text(MAX_GRAMMAR_BYTES, "Text that follows the answer (infill); needs a model with infill tokens."),
    "logit_bias": fields.Dict(
        keys=Text(validate=validate.Regexp(r"[0-9]{1,9}\Z", error="Must be a token id, a whole number.")),
        values=RealNumber(validate=validate.Range(-100, 100)),
        validate=_not_too_many,
        allow_none=True,
        metadata={"description": "Token id to what is added to its logit.", "maxProperties": MAX_BIASES},
    ),
    "ignore_eos": Flag(allow_none=True, metadata={"description": "Go on past the end-of-text token."}),
    "grammar": _text(MAX_GRAMMAR_BYTES, "GBNF grammar the answer obeys."),
    "json_schema": JsonObject(
        max_bytes=MAX_GRAMMAR_BYTES,
        allow_none=True,
        metadata={"description": "JSON Schema the answer obeys."},
    ),
    "mirostat": _whole(0, 2, "Mirostat sampling: 0 = off, else its version."),
    "mirostat_tau": _real(0, 100, "Mirostat's target entropy."),
    "mirostat_eta": _real(0, 1, "Mirostat's learning rate."),
}


def _alias(alias: str, canonical: str) -> fields.Field[Any]:
    field = copy.deepcopy(_VOCABULARY[canonical])
    field.metadata = {**field.metadata, "description": f"Another name of {canonical}."}
    return field


def _not_both(one: str, other: str) -> dict[str, Any]:
    """JSON Schema: at most one of two parameters is given; null is not given."""
    given = {"not": {"type": "null"}}
    return {"not": {"required": [one, other], "properties": {one: given, other: given}}}


def _not_greedy(name: str) -> dict[str, Any]:
    warm = {"type": "number", "exclusiveMinimum": 0}
    return {"not": {"required": ["do_sample", name], "properties": {"do_sample": {"const": False}, name: warm}}}


_NAMES = {canonical: [canonical, *(a for a, c in ALIASES.items() if c == canonical)] for canonical in _VOCABULARY}
CONTRADICTIONS: list[dict[str, Any]] = [
    *(_not_both(*pair) for names in _NAMES.values() for pair in itertools.combinations(names, 2)),
    *(_not_greedy(name) for name in _NAMES["temperature"]),
    _not_both("grammar", "json_schema"),
    {"properties": {"logit_bias": {"propertyNames": {"pattern": "^[0-9]{1,9}$"}}}},
]
"""What marshmallow's fields cannot say, as JSON Schema for the documentation; `_refuse_contradictions` enforces it."""


def canonical_params(data: dict[str, Any]) -> dict[str, Any]:
    """What the client has set, under canonical names. Raises ValidationError where names exclude each other."""
    given = {name: value for name, value in data.items() if value is not None}
    _refuse_contradictions(given)
    params = {ALIASES.get(name, name): value for name, value in given.items()}
    if params.get("do_sample") is False:
        del params["do_sample"]
        params["temperature"] = 0.0
    if isinstance(params.get("stop"), str):
        params["stop"] = [params["stop"]]
    if given.get("n_probs") == 0:  # llama-server's way to say: no logprobs
        del params["logprobs"]
    return params


SAMPLING_FIELDS: dict[str, fields.Field[Any]] = {
    "do_sample": Flag(
        allow_none=True, metadata={"description": "false = greedy: temperature 0; true: drawn (transformers)."}
    ),
    **_VOCABULARY,
    **{alias: _alias(alias, canonical) for alias, canonical in ALIASES.items()},
}


class _Params(StrictSchema):
    also: ClassVar = {"allOf": CONTRADICTIONS}

    @post_load
    def _canonical(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return canonical_params(data)


SamplingSchema = _Params.from_dict(SAMPLING_FIELDS | TRANSFORMERS_PARAMS, name="SamplingSchema")


def _refuse_contradictions(given: dict[str, Any]) -> None:
    """Raises ValidationError naming both of two names that exclude each other."""
    first_name: dict[str, str] = {}
    for name in given:
        canonical = ALIASES.get(name, name)
        if canonical in first_name:
            raise ValidationError({name: [f"{first_name[canonical]} and {name} mean the same; send one of them."]})
        first_name[canonical] = name
    if given.get("do_sample") is False and given.get(first_name.get("temperature", ""), 0) > 0:
        name = first_name["temperature"]
        raise ValidationError({name: [f"do_sample: false means temperature 0; send do_sample or {name}."]})
    if "grammar" in given and "json_schema" in given:
        raise ValidationError({"json_schema": ["grammar and json_schema exclude each other; send one of them."]})
