"""The sampling parameters, one vocabulary for every model family.

**To add a parameter, add a field to `SamplingParams`.** Its `Parameter` says what clients may send: the request schema
(`app.api.schemas.sampling`), the aliases and the API documentation derive from it. Then read the field in the engines
that support it, and let the others refuse it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

MAX_TOKENS = 1_000_000  # beyond every context; the model's own context is the limit that counts
MAX_SEED = 2**32 - 1  # llama.cpp's samplers take 32 bits
MAX_LOGPROBS = 20  # alternatives per token, as in OpenAI's API


@dataclass(frozen=True, slots=True)
class Parameter:
    """What clients may send for a field of `SamplingParams`.

    Args:
        meaning: one line for the API documentation.
        limits: the smallest and the largest number, both allowed.
        aliases: other names of the parameter, with the library that uses the name.
    """

    meaning: str
    limits: tuple[float, float] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of one sequence are chosen. The defaults switch every processing step off, except temperature 1.

    do_sample: None: as the family does. logprobs: None: not reported. extra: what a family adds to the vocabulary.
    """

    max_tokens: Annotated[
        int,
        Parameter(
            "The maximum number of tokens to generate.",
            (1, MAX_TOKENS),
            {"max_new_tokens": "transformers", "n_predict": "llama.cpp", "num_predict": "Ollama"},
        ),
    ] = 128
    min_length: Annotated[
        int,
        Parameter(
            "The number of tokens to generate before the model may end its answer.",
            (0, MAX_TOKENS),
            {"min_new_tokens": "transformers", "min_tokens": "vLLM"},
        ),
    ] = 0
    max_length: Annotated[
        int | None,
        Parameter(
            "The maximum number of tokens of prompt and completion together; limits max_tokens.", (1, MAX_TOKENS)
        ),
    ] = None
    temperature: Annotated[
        float, Parameter("0 = greedy: always the most likely token.", (0, 100), {"temp": "llama.cpp"})
    ] = 1.0
    do_sample: Annotated[
        bool | None, Parameter("false = greedy, the same as temperature 0; true = sampled (transformers).")
    ] = None
    top_k: Annotated[int, Parameter("Choose among the k most likely tokens; 0 = off.", (0, MAX_TOKENS))] = 0
    top_p: Annotated[
        float, Parameter("Choose among the most likely tokens whose probabilities add up to this; 1 = off.", (0, 1))
    ] = 1.0
    min_p: Annotated[
        float,
        Parameter("Drop tokens whose probability is below this share of the most likely token's; 0 = off.", (0, 1)),
    ] = 0.0
    typical_p: Annotated[
        float,
        Parameter(
            "Locally typical sampling; 1 = off.", (0, 1), {"typical": "llama.cpp, formerly", "typ_p": "llama.cpp"}
        ),
    ] = 1.0
    repeat_penalty: Annotated[
        float,
        Parameter("Divides the logits of recent tokens; 1 = off.", (0.01, 10), {"repetition_penalty": "transformers"}),
    ] = 1.0
    repeat_last_n: Annotated[
        int,
        Parameter(
            "The number of recent tokens that the three penalties look at; 0 = off, -1 = the context.",
            (-1, MAX_TOKENS),
            {"penalty_last_n": "llama.cpp"},
        ),
    ] = 64
    frequency_penalty: Annotated[
        float, Parameter("Subtracted from a token's logit for each recent occurrence.", (-10, 10))
    ] = 0.0
    presence_penalty: Annotated[
        float, Parameter("Subtracted from a token's logit once it has occurred.", (-10, 10))
    ] = 0.0
    stop: Annotated[
        tuple[str, ...],
        Parameter(
            "Strings that end the answer; they are not part of it.",
            aliases={"stop_strings": "transformers", "stop_sequences": "TGI's client"},
        ),
    ] = ()
    seed: Annotated[int | None, Parameter("Same seed, same prompt, same parameters: same text.", (0, MAX_SEED))] = None
    logprobs: Annotated[
        int | None,
        Parameter(
            "Report each token's log probability, and this number of the most likely alternatives.",
            (0, MAX_LOGPROBS),
            {"n_probs": "llama-server"},
        ),
    ] = None
    echo: Annotated[bool, Parameter("Put the prompt before the answer.")] = False
    suffix: Annotated[
        str | None, Parameter("Text that follows the answer (infill); needs a model with infill tokens.")
    ] = None
    logit_bias: Annotated[dict[int, float], Parameter("Maps token ids to numbers that are added to their logits.")] = (
        field(default_factory=dict)
    )
    ignore_eos: Annotated[bool, Parameter("Continue after the end-of-text token.")] = False
    grammar: Annotated[str | None, Parameter("A GBNF grammar that the answer follows.")] = None
    json_schema: Annotated[dict[str, Any] | None, Parameter("A JSON Schema that the answer follows.")] = None
    mirostat: Annotated[
        int, Parameter("Mirostat sampling: 0 = off, else its version.", (0, 2), {"mirostat_mode": "llama-cpp-python"})
    ] = 0
    mirostat_tau: Annotated[float, Parameter("Mirostat's target entropy.", (0, 100))] = 5.0
    mirostat_eta: Annotated[float, Parameter("Mirostat's learning rate.", (0, 1))] = 0.1
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def build(cls, defaults: dict[str, Any], params: dict[str, Any]) -> "SamplingParams":
        """Lay a request's parameters over the family's defaults. Names outside the vocabulary become `extra`."""
        merged = defaults | params
        known = {f.name for f in fields(cls)} - {"extra"}
        values = {name: value for name, value in merged.items() if name in known}
        if "stop" in values:
            values["stop"] = tuple(values["stop"])
        if "logit_bias" in values:
            values["logit_bias"] = {int(token): float(bias) for token, bias in values["logit_bias"].items()}
        return cls(**values, extra={name: value for name, value in merged.items() if name not in known})


def parameters() -> dict[str, tuple[Any, Parameter]]:
    """Return the type (without None) and the `Parameter` of each field that clients may send, by name."""
    sendable: dict[str, tuple[Any, Parameter]] = {}
    for name, hint in get_type_hints(SamplingParams, include_extras=True).items():
        match get_args(hint):
            case (kind, Parameter() as parameter):
                is_optional = NoneType in get_args(kind)
                sendable[name] = (get_args(kind)[0] if is_optional else kind, parameter)
    return sendable
