"""From `params` to the arguments of `model.generate()`: the common vocabulary and all of `GenerationConfig`.

What a client has not set is left to the model's own generation config, as `generate()` leaves it. A field of
`SamplingParams` that transformers has no argument for is a processor of ours: `processors.common_processors`.
"""

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from app.errors import InvalidRequest, UnsupportedParameter
from app.jobs.sampling import SamplingParams
from workers.suggestions import closest

DEFAULTS: dict[str, Any] = {"max_tokens": 128, "repeat_last_n": -1}
"""Of a request; `repeat_last_n`: transformers' penalties look at all there is."""

MAX_BEAMS = 32  # each holds keys and values of its own
MAX_LIST_ITEMS = 1024  # of a list or mapping; some processors look at each of them at every token

KNOWN = frozenset(GenerationConfig().to_dict()) - {"transformers_version", "_from_model_config"}

_SPELLED = {"top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p"}
_SAMPLES = frozenset({"temperature", *_SPELLED, "top_h", "epsilon_cutoff", "eta_cutoff"})
_TOKEN_IDS = frozenset(
    {
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "eos_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "pad_token_id",
        "suppress_tokens",
    }
)
_REAL = frozenset(
    {
        "diversity_penalty",
        "encoder_repetition_penalty",
        "epsilon_cutoff",
        "eta_cutoff",
        "guidance_scale",
        "length_penalty",
        "max_time",
        "min_p",
        "repetition_penalty",
        "temperature",
        "top_h",
        "top_p",
        "typical_p",
    }
)
_LOGPROBS = "the output is text: ask for logprobs"
_REJECTED: dict[str, str] = {  # makes no sense over HTTP: what to do instead; false and null are accepted
    "output_attentions": _LOGPROBS,
    "output_hidden_states": _LOGPROBS,
    "output_logits": _LOGPROBS,
    "output_scores": _LOGPROBS,
    "return_dict_in_generate": _LOGPROBS,
    "token_healing": "it rewrites the prompt: send the prompt that is to be continued",
    "is_assistant": "no other model uses this one as its assistant here",
    "compile_config": "a request cannot decide how the model is compiled",
    "continuous_batching_config": "a request cannot decide how requests are batched",
}


def generate_arguments(sampling: SamplingParams, given: Mapping[str, Any], vocabulary_size: int) -> dict[str, Any]:
    """Return keyword arguments for `generate()`.

    Args:
        sampling: `max_tokens` is what can be generated.
        given: what the client has set.

    Raises:
        UnsupportedParameter, InvalidRequest: name the field.
    """
    extra = {name: value for name, value in sampling.extra.items() if value is not None}
    _reject(sampling, extra)
    arguments = {theirs: getattr(sampling, ours) for ours, theirs in _SPELLED.items() if ours in given}
    arguments |= extra
    arguments["max_new_tokens"] = sampling.max_tokens
    if sampling.min_length:
        arguments["min_new_tokens"] = min(sampling.min_length, sampling.max_tokens)
    _set_sampling(arguments, sampling, given)
    if "repeat_penalty" in given:  # with a window it is a processor of ours
        arguments["repetition_penalty"] = sampling.repeat_penalty if sampling.repeat_last_n < 0 else 1.0
    for name in _REAL & arguments.keys():
        arguments[name] = _real(name, arguments[name])
    _check_sizes(arguments, vocabulary_size)
    if "sequence_bias" in arguments:
        arguments["sequence_bias"] = _sequence_bias(arguments["sequence_bias"], vocabulary_size)
    return arguments


def _set_sampling(arguments: dict[str, Any], sampling: SamplingParams, given: Mapping[str, Any]) -> None:
    """Greedy at temperature 0; sampled where the client sets anything that only sampling uses; else as the model's
    generation config has it.
    """
    if "temperature" in given and sampling.temperature <= 0:
        arguments["do_sample"] = False
    elif sampling.do_sample is not None:
        arguments["do_sample"] = sampling.do_sample
    elif _SAMPLES & {*given, *arguments}:
        arguments["do_sample"] = True
    if "temperature" in given and sampling.temperature > 0:
        arguments["temperature"] = sampling.temperature


def _reject(sampling: SamplingParams, extra: Mapping[str, Any]) -> None:
    errors = {}
    for name, value in extra.items():
        if name not in KNOWN:
            errors[name] = f"the huggingface family has no such parameter; near it are {closest(name, KNOWN)}"
        elif name in _REJECTED and value is not False:
            errors[name] = _REJECTED[name]
    if sampling.mirostat:
        errors["mirostat"] = "transformers has no mirostat: leave it out, typical_p is akin to it"
    if extra.get("num_return_sequences", 1) != 1:
        errors["num_return_sequences"] = "a job has one text: send the request once for each"
    if extra.get("cache_implementation") == "paged":
        errors["cache_implementation"] = "this service batches by itself: leave it out"
    if errors:
        detail = "; ".join(f"{name}: {reason}" for name, reason in errors.items())
        raise UnsupportedParameter(detail, errors={f"params.{name}": [reason] for name, reason in errors.items()})


def _check_sizes(arguments: Mapping[str, Any], vocabulary_size: int) -> None:
    beams = arguments.get("num_beams", 1)
    if not _is_whole(beams) or not 1 <= beams <= MAX_BEAMS:
        raise invalid("num_beams", f"must be a whole number from 1 to {MAX_BEAMS}")
    for name, value in arguments.items():
        items = list(_leaves(value))
        if len(items) > MAX_LIST_ITEMS:
            raise invalid(name, f"must not hold more than {MAX_LIST_ITEMS} values")
        if name in _TOKEN_IDS:
            _check_ids(name, items, vocabulary_size)


def _sequence_bias(entries: Any, vocabulary_size: int) -> list[Any]:
    biases = []
    for entry in entries if isinstance(entries, list) else [None]:
        match entry:
            case [[_, *_] as tokens, int() | float() as bias]:
                _check_ids("sequence_bias", tokens, vocabulary_size)
                biases.append([tokens, float(bias)])
            case _:
                raise invalid("sequence_bias", "must be a list of [[token id, ...], bias]")
    return biases


def _check_ids(name: str, ids: list[Any], vocabulary_size: int) -> None:
    """An id beyond the vocabulary would be an error of the device, which takes all sequences down."""
    wrong = [token for token in ids if not _is_whole(token) or not 0 <= token < vocabulary_size]
    if wrong:
        raise invalid(name, f"there is no token {wrong[0]!r}: ids go from 0 to {vocabulary_size - 1}")


def _leaves(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        yield value
        return
    for inner in value:
        yield from _leaves(inner)


def _real(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise invalid(name, "must be a number")
    return float(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def invalid(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {reason}", errors={f"params.{name}": [reason]})
