"""`model_params` of the huggingface family: four keys of ours, the rest goes to transformers' `from_pretrained`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from app.errors import ConfigError

DEFAULT_DTYPE = torch.bfloat16
DEFAULT_BATCHED_TOKENS = 512

# What a tokenizer knows and a model does not; everything else is the model's.
_OF_TOKENIZERS = frozenset(
    {
        "add_bos_token",
        "add_eos_token",
        "add_prefix_space",
        "bos_token",
        "chat_template",
        "clean_up_tokenization_spaces",
        "eos_token",
        "legacy",
        "model_max_length",
        "pad_token",
        "padding_side",
        "sep_token",
        "tokenizer_file",
        "tokenizer_type",
        "truncation_side",
        "unk_token",
        "use_fast",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersModelParams:
    """n_ctx: cells of one slot, prompt and completion together; None = the training context, at most 2048; 0 = the
    training context. n_batch: tokens of one step. n_threads: of the CPU; None = all that may be used. seed: of requests
    that name none; None = another each time. for_model, for_tokenizer: arguments of `from_pretrained`.
    """

    n_ctx: int | None = None
    n_batch: int = DEFAULT_BATCHED_TOKENS
    n_threads: int | None = None
    seed: int | None = None
    trust_remote_code: bool = False
    for_model: dict[str, Any] = field(default_factory=dict)
    for_tokenizer: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "TransformersModelParams":
        """Texts such as `torch.bfloat16` become what they name, at any depth; `torch_dtype` is the old name of `dtype`.

        Raises:
            ConfigError: names the key and what was expected.
        """
        given = {key: value for key, value in raw.items() if value is not None}
        if "dtype" in given and "torch_dtype" in given:
            raise ConfigError("model_params.dtype and model_params.torch_dtype mean the same: keep one of them")
        if "torch_dtype" in given:
            given["dtype"] = given.pop("torch_dtype")
        ours = {key: _whole(key, given.pop(key), least) for key, least in _LEAST.items() if key in given}
        trust = given.pop("trust_remote_code", False)
        if not isinstance(trust, bool):
            raise ConfigError("model_params.trust_remote_code must be true or false")
        values = {key: _resolved(f"model_params.{key}", value) for key, value in given.items()}
        return cls(
            **ours,
            trust_remote_code=trust,
            for_model={"dtype": DEFAULT_DTYPE} | {k: v for k, v in values.items() if k not in _OF_TOKENIZERS},
            for_tokenizer={k: v for k, v in values.items() if k in _OF_TOKENIZERS},
        )


_LEAST = {"n_ctx": 0, "n_batch": 1, "n_threads": 1, "seed": 0}


def _whole(key: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"model_params.{key} must be a whole number of at least {least}, not {value!r}")
    return value


def _resolved(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _resolved(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(key, inner) for inner in value]
    if not (isinstance(value, str) and value.startswith("torch.")):
        return value
    found = getattr(torch, value.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"{key} must be a type of torch such as torch.bfloat16 or torch.float16, not {value}")
    return found
