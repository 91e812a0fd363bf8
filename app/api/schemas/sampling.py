"""`params` of a request: the vocabulary of `app.jobs.sampling`, aliases included, and transformers' own parameters.

Loaded parameters have canonical names only, and there are only those that the client has set. `SamplingParams` declares
the names, aliases, limits and meanings of the vocabulary.
"""

from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.adapters import LoraField
from app.api.schemas.constraints import GUIDED_FIELDS, MAX_JSON_BYTES, JsonSchemaField, as_parameters, source_field
from app.api.schemas.fields import (
    BoundedDict,
    BoundedList,
    Flag,
    JsonValue,
    RealNumber,
    TextField,
    TextOrTexts,
    TokenCount,
    WholeNumber,
)
from app.api.schemas.request_schema import RequestSchema
from app.jobs.sampling import CONSTRAINTS, Parameter, parameters

MAX_STOPS, MAX_STOP_LENGTH = 16, 1024  # a stop string is searched for after every token
MAX_BIASES = 1024
MAX_STOP_TOKENS = 128
MAX_TOKEN_ID = 2**31 - 1
RANDOM_SEED = -1  # as in llama.cpp, vLLM and Ollama
_TOKEN_ID = "[0-9]{1,9}"  # noqa: S105 - of a model's vocabulary

_PARAMETERS = parameters()
ALIASES = {alias: name for name, (_, parameter) in _PARAMETERS.items() for alias in parameter.aliases}

TRANSFORMERS_FIELDS: dict[type[fields.Field[Any]], tuple[str, ...]] = {
    Flag: (
        "disable_compile",
        "is_assistant",
        "low_memory",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "remove_invalid_values",
        "renormalize_logits",
        "return_dict_in_generate",
        "token_healing",
        "use_cache",
        "use_mtp",
    ),
    WholeNumber: (
        "assistant_early_exit",
        "assistant_lookbehind",
        "bos_token_id",
        "decoder_start_token_id",
        "encoder_no_repeat_ngram_size",
        "forced_bos_token_id",
        "max_cache_len",
        "max_matching_ngram_size",
        "no_repeat_ngram_size",
        "num_assistant_tokens",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "pad_token_id",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "target_lookbehind",
    ),
    RealNumber: (
        "assistant_confidence_threshold",
        "assistant_ensemble_weight",
        "diversity_penalty",
        "encoder_repetition_penalty",
        "epsilon_cutoff",
        "eta_cutoff",
        "guidance_scale",
        "length_penalty",
        "max_time",
        "penalty_alpha",
        "top_h",
    ),
    TextField: ("cache_implementation", "num_assistant_tokens_schedule", "speculation_type"),
    JsonValue: (
        "bad_words_ids",
        "begin_suppress_tokens",
        "cache_config",
        "compile_config",
        "constraints",
        "continuous_batching_config",
        "dola_layers",
        "early_stopping",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "force_words_ids",
        "forced_eos_token_id",
        "sequence_bias",
        "suppress_tokens",
        "watermarking_config",
    ),
}
"""The rest of transformers' `GenerationConfig`, by type. Types are checked here, values by the worker, which has the
library; a worker of another family rejects the names. `tests/workers/engines/transformers` compares the list with it.
"""
TRANSFORMERS_NAMES = frozenset(name for names in TRANSFORMERS_FIELDS.values() for name in names)


def _not_too_many(biases: dict[str, float]) -> None:
    if len(biases) > MAX_BIASES:
        raise ValidationError(f"Must not have more than {MAX_BIASES} token ids.")


def _field(kind: Any, parameter: Parameter, description: str) -> fields.Field[Any]:
    """Return the field for a parameter of the vocabulary."""
    about: dict[str, Any] = {"description": description}
    limits = parameter.limits and validate.Range(*parameter.limits)
    if parameter.clipped and parameter.limits:
        least, most = map(int, parameter.limits)
        return TokenCount(least=least, most=most, minus_one=parameter.minus_one, metadata=about)
    if kind is int:
        return WholeNumber(validate=limits, metadata=about)
    if kind is float:
        return RealNumber(validate=limits, metadata=about)
    if kind is bool:
        return Flag(metadata=about)
    if kind is str:
        return source_field(metadata={**about, "pattern": "^[^\\u0000]*$"})
    if kind == tuple[str, ...]:
        return TextOrTexts(longest=MAX_STOP_LENGTH, most=MAX_STOPS, metadata=about)
    if kind == tuple[int, ...]:
        token = WholeNumber(validate=validate.Range(0, MAX_TOKEN_ID))
        return BoundedList(token, validate=validate.Length(max=MAX_STOP_TOKENS), metadata=about)
    if kind == dict[int, float]:
        token_id = validate.Regexp(_TOKEN_ID + r"\Z", error="Must be a token id, a whole number.")
        return BoundedDict(
            keys=TextField(validate=token_id),
            values=RealNumber(validate=validate.Range(-100, 100)),
            validate=_not_too_many,
            metadata={**about, "maxProperties": MAX_BIASES},
        )
    assert kind == dict[str, Any], f"no field for parameters of the type {kind}"
    return JsonSchemaField(metadata=about)


SAMPLING_FIELDS: dict[str, fields.Field[Any]] = {
    **{name: _field(kind, parameter, parameter.meaning) for name, (kind, parameter) in _PARAMETERS.items()},
    **{
        alias: _field(
            kind, parameter, f"Another name of {name}, used by {library}; it excludes the others with another value."
        )
        for name, (kind, parameter) in _PARAMETERS.items()
        for alias, library in parameter.aliases.items()
    },
    **GUIDED_FIELDS,
}


def _transformers_field(kind: type[fields.Field[Any]]) -> fields.Field[Any]:
    about = {"description": "huggingface only: as in transformers' GenerationConfig."}
    return JsonValue(max_bytes=MAX_JSON_BYTES, metadata=about) if kind is JsonValue else kind(metadata=about)


def _not_greedy(name: str) -> dict[str, Any]:
    warm = {"type": "number", "exclusiveMinimum": 0}
    return {"not": {"required": ["do_sample", name], "properties": {"do_sample": {"const": False}, name: warm}}}


_NAMES = {name: [name, *parameter.aliases] for name, (_, parameter) in _PARAMETERS.items()}

_CONSTRAINTS = [name for canonical in CONSTRAINTS for name in _NAMES[canonical]] + list(GUIDED_FIELDS)


_NOTHING = {"seed": RANDOM_SEED, "stop_token_ids": [], "grammar": "", "suffix": ""}
"""Values that ask for nothing, as other servers read them, by canonical names."""

CONTRADICTIONS: list[dict[str, Any]] = [
    *(_not_greedy(name) for name in _NAMES["temperature"]),
    {"properties": {"logit_bias": {"propertyNames": {"pattern": f"^{_TOKEN_ID}$"}}}},
]
"""What fields cannot express, as JSON Schema for the documentation. Which names exclude each other, it says in words: a
`not` for each pair is more than generators of requests can bear (decision 0034).
"""


class SamplingSchema(RequestSchema):
    also: ClassVar = {"allOf": CONTRADICTIONS}

    class Meta(RequestSchema.Meta):
        include: ClassVar = (
            SAMPLING_FIELDS
            | {name: _transformers_field(kind) for kind, names in TRANSFORMERS_FIELDS.items() for name in names}
            | {"lora": LoraField()}
        )

    @post_load
    def _canonical(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return canonical_params(data)


def canonical_params(given: dict[str, Any]) -> dict[str, Any]:
    """Return what the client has set, under canonical names.

    Raises:
        ValidationError: two names mean the same and have different values, or exclude each other; the message names
            both.
    """
    given = {name: value for name, value in given.items() if value != _NOTHING.get(ALIASES.get(name, name))}
    _reject_contradictions(given)
    params = as_parameters({ALIASES.get(name, name): value for name, value in given.items()})
    if params.get("do_sample") is False:
        del params["do_sample"]
        params["temperature"] = 0.0
    if isinstance(params.get("stop"), str):
        params["stop"] = [params["stop"]]
    if given.get("n_probs") == 0:  # llama-server's way to ask for no logprobs
        del params["logprobs"]
    return params


def _reject_contradictions(given: dict[str, Any]) -> None:
    first_name: dict[str, str] = {}
    for name in given:
        canonical = ALIASES.get(name, name)
        first = first_name.setdefault(canonical, name)
        if given[first] != given[name]:
            raise ValidationError({name: [f"{first} and {name} mean the same; send one of them."]})
    if given.get("do_sample") is False and given.get(first_name.get("temperature", ""), 0) > 0:
        name = first_name["temperature"]
        raise ValidationError({name: [f"do_sample: false means temperature 0; send do_sample or {name}."]})
    constraints = [name for name in given if name in _CONSTRAINTS]
    if len(constraints) > 1:
        one, other = constraints[:2]
        raise ValidationError({other: [f"{one} and {other} exclude each other; send one of them."]})
