"""The sampling parameters, one vocabulary for every model family.

**To add a parameter, add a field to `SamplingParams`.** Its `Parameter` says what clients may send: the request schema
(`app.api.schemas.sampling`), the aliases and the API documentation derive from it. Then read the field in the engines
that support it, and let the others reject it: CONTRIBUTING.md names their files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, TypeVar, get_args

MAX_TOKENS = 1_000_000  # beyond every context; the model's own context is the limit that counts
MAX_SEED = 2**32 - 1  # llama.cpp's samplers take 32 bits
CONSTRAINTS = ("grammar", "json_schema", "regex")
MAX_LOGPROBS = 20  # alternatives per token, as in OpenAI's API

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What clients may send for a field of `SamplingParams`.

    Args:
        meaning: one line for the API documentation.
        limits: the smallest and the largest number, both allowed.
        clipped: a larger number counts as the largest: it is beyond every context, and other servers accept it.
        minus_one: what -1 counts as, which other servers read as "no limit"; None: it has no meaning.
        aliases: other names of the parameter, with the library that uses the name.
    """

    meaning: str
    limits: tuple[float, float] | None = None
    clipped: bool = False
    minus_one: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


def _parameter(
    default: T,
    meaning: str,
    limits: tuple[float, float] | None = None,
    *,
    clipped: bool = False,
    minus_one: int | None = None,
    **aliases: str,
) -> T:
    """Declare a field of `SamplingParams`, as `dataclasses.field` does."""
    parameter = Parameter(meaning, limits, clipped, minus_one, aliases)
    return field(default=default, metadata={"parameter": parameter})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of one sequence are chosen. The defaults switch every processing step off, except temperature 1.

    do_sample: None: as the family does. logprobs: None: not reported. extra: what a family adds to the vocabulary.
    """

    max_tokens: int = _parameter(
        128,
        "The maximum number of tokens to generate; never more than the context has room for. -1 = no limit.",
        (1, MAX_TOKENS),
        clipped=True,
        minus_one=MAX_TOKENS,
        max_completion_tokens="OpenAI's chats",
        max_output_tokens="OpenAI's responses",
        max_new_tokens="transformers",
        n_predict="llama.cpp",
        num_predict="Ollama",
    )
    min_length: int = _parameter(
        0,
        "The number of tokens to generate before the model may end its output.",
        (0, MAX_TOKENS),
        clipped=True,
        min_new_tokens="transformers",
        min_tokens="vLLM",
    )
    max_length: int | None = _parameter(
        None,
        "The maximum number of tokens of prompt and completion together; limits max_tokens. -1 = no limit.",
        (1, MAX_TOKENS),
        clipped=True,
        minus_one=MAX_TOKENS,
    )
    temperature: float = _parameter(1.0, "0 = greedy: always the most likely token.", (0, 100), temp="llama.cpp")
    do_sample: bool | None = _parameter(None, "false = greedy, as temperature 0; true = sampled (transformers).")
    top_k: int = _parameter(
        0, "Choose among the k most likely tokens; 0 or -1 = off.", (0, MAX_TOKENS), clipped=True, minus_one=0
    )
    top_p: float = _parameter(
        1.0, "Choose among the most likely tokens whose probabilities add up to this; 1 = off.", (0, 1)
    )
    min_p: float = _parameter(
        0.0, "Drop tokens whose probability is below this share of the most likely token's; 0 = off.", (0, 1)
    )
    typical_p: float = _parameter(
        1.0, "Locally typical sampling; 1 = off.", (0, 1), typical="llama.cpp, formerly", typ_p="llama.cpp"
    )
    repeat_penalty: float = _parameter(
        1.0, "Divides the logits of recent tokens; 1 = off.", (0.01, 10), repetition_penalty="transformers"
    )
    repeat_last_n: int = _parameter(
        64,
        "The number of recent tokens that the three penalties look at; 0 = off, -1 = the context.",
        (-1, MAX_TOKENS),
        clipped=True,
        penalty_last_n="llama.cpp",
    )
    frequency_penalty: float = _parameter(0.0, "Subtracted from a token's logit for each recent occurrence.", (-10, 10))
    presence_penalty: float = _parameter(0.0, "Subtracted from a token's logit once it has occurred.", (-10, 10))
    stop: tuple[str, ...] = _parameter(
        (),
        "Strings that end the output; they are not part of it.",
        stop_strings="transformers",
        stop_sequences="TGI's client",
        stopping_strings="text-generation-webui",
    )
    stop_token_ids: tuple[int, ...] = _parameter(
        (), "Tokens that end the output, from `min_length` on; they are not part of it."
    )
    seed: int | None = _parameter(
        None,
        "Same seed, same prompt, same parameters: same text. -1 = a random one.",
        (-1, MAX_SEED),
        random_seed="Mistral",
        sampling_seed="SGLang",
    )
    logprobs: int | None = _parameter(
        None,
        "Report each token's log probability, and this number of the most likely alternatives.",
        (0, MAX_LOGPROBS),
        n_probs="llama-server",
    )
    echo: bool = _parameter(False, "Put the prompt before the output.")
    suffix: str | None = _parameter(None, "Text that follows the output (infill); needs a model with infill tokens.")
    logit_bias: dict[int, float] = field(
        default_factory=dict,
        metadata={"parameter": Parameter("Maps token ids to numbers that are added to their logits.")},
    )
    ignore_eos: bool = _parameter(False, "Continue after the end-of-text token.")
    grammar: str | None = _parameter(
        None,
        "A grammar that the output follows, in GBNF or in Lark (with a rule `start`).",
        guided_grammar="vLLM",
        ebnf="SGLang",
    )
    json_schema: dict[str, Any] | None = _parameter(  # noqa: RUF009
        None, "A JSON Schema that the output follows.", guided_json="vLLM"
    )
    regex: str | None = _parameter(None, "A regular expression that the whole output matches.", guided_regex="vLLM")
    mirostat: int = _parameter(
        0, "Mirostat sampling: 0 = off, else its version.", (0, 2), mirostat_mode="llama-cpp-python"
    )
    mirostat_tau: float = _parameter(5.0, "Mirostat's target entropy.", (0, 100))
    mirostat_eta: float = _parameter(0.1, "Mirostat's learning rate.", (0, 1))
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def constraints(self) -> list[str]:
        """The names of the parameters by which the output follows a grammar."""
        return [name for name in CONSTRAINTS if getattr(self, name) is not None]

    @classmethod
    def build(cls, defaults: dict[str, Any], params: dict[str, Any]) -> "SamplingParams":
        """Lay a request's parameters over the family's defaults. Names outside the vocabulary become `extra`."""
        merged = defaults | params
        known = {f.name for f in fields(cls)} - {"extra"}
        values = {name: value for name, value in merged.items() if name in known}
        if "stop" in values:
            values["stop"] = tuple(values["stop"])
        values["stop_token_ids"] = tuple(values.get("stop_token_ids", ()))
        if "logit_bias" in values:
            values["logit_bias"] = {int(token): float(bias) for token, bias in values["logit_bias"].items()}
        return cls(**values, extra={name: value for name, value in merged.items() if name not in known})


def parameters() -> dict[str, tuple[Any, Parameter]]:
    """Return the type (without None) and the `Parameter` of each field that clients may send, by name."""
    sendable = [made for made in fields(SamplingParams) if made.metadata]
    return {made.name: (_without_none(made.type), made.metadata["parameter"]) for made in sendable}


def _without_none(kind: Any) -> Any:
    return get_args(kind)[0] if NoneType in get_args(kind) else kind
