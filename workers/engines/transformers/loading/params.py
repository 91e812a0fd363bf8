"""`setup_params` and `model_params` of the huggingface family.

Of `setup_params` these are the keys beyond where the model comes from. `model_params` has five keys of ours; the others
are arguments of transformers' `from_pretrained`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from app.errors import ConfigError
from workers.engines.shared.configured_template import configured_template
from workers.engines.shared.options import Check, checked, flag, natural, positive, text, wrong

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


class ModelKind(StrEnum):
    """What a model is for: to continue texts (which it can also embed), or to embed them only."""

    CAUSAL = "causal"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSetupParams:
    """tokenizer_repo_id: a repository or local folder; None = the model's own. gguf_file: of the repository or folder.

    config_params: set on the model's config, mappings merged into what is there. model_kind None: read off
    the model's architecture.
    """

    tokenizer_repo_id: str | None = None
    trust_remote_code: bool = False
    config_params: Mapping[str, Any] = field(default_factory=dict)
    gguf_file: str | None = None
    model_kind: ModelKind | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "TransformersSetupParams":
        """Check the section; keys of `workers.models.source` are ignored.

        Raises:
            ConfigError: names the key and what was expected.
        """
        return cls(**checked("setup_params", raw, _SETUP_CHECKS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersModelParams:
    """n_ctx: cells of one slot, prompt and completion together; None = the training context, at most 2048; 0 = the
    training context. n_batch: tokens of one step. n_threads: of the CPU; None = all that may be used. seed: of requests
    that name none; None = another each time. loras: see `app.config.adapters`. for_model, for_tokenizer: arguments of
    `from_pretrained`.
    """

    n_ctx: int | None = None
    n_batch: int = DEFAULT_BATCHED_TOKENS
    n_threads: int | None = None
    seed: int | None = None
    trust_remote_code: bool = False
    loras: Mapping[str, Any] | None = None
    for_model: dict[str, Any] = field(default_factory=dict)
    for_tokenizer: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "TransformersModelParams":
        """Check the section. Texts such as `torch.bfloat16` become what they name, at any depth; `torch_dtype` is the
        old name of `dtype`.

        Raises:
            ConfigError: names the key and what was expected.
        """
        others = {key: value for key, value in raw.items() if value is not None and key not in _MODEL_CHECKS}
        if "dtype" in others and "torch_dtype" in others:
            raise ConfigError("model_params.dtype and model_params.torch_dtype mean the same: keep one of them")
        if "torch_dtype" in others:
            others["dtype"] = others.pop("torch_dtype")
        own = checked("model_params", raw, _MODEL_CHECKS)
        if isinstance(others.get("chat_template"), str):
            others["chat_template"] = configured_template(others["chat_template"])
        values = {key: _resolved(f"model_params.{key}", value) for key, value in others.items()}
        return cls(
            **own,
            for_model={"dtype": DEFAULT_DTYPE} | {k: v for k, v in values.items() if k not in _OF_TOKENIZERS},
            for_tokenizer={k: v for k, v in values.items() if k in _OF_TOKENIZERS},
        )


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong(key, "a mapping of config attributes to values", value)
    return value


def _kind(key: str, value: Any) -> ModelKind:
    if value not in list(ModelKind):
        raise wrong(key, " or ".join(ModelKind), value)
    return ModelKind(value)


def _resolved(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _resolved(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(key, inner) for inner in value]
    if not (isinstance(value, str) and value.startswith("torch.")):
        return value
    dtype = getattr(torch, value.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise wrong(key, "a type of torch such as torch.bfloat16 or torch.float16", value)
    return dtype


_SETUP_CHECKS: dict[str, Check] = {
    "tokenizer_repo_id": text,
    "trust_remote_code": flag,
    "config_params": _mapping,
    "gguf_file": text,
    "model_kind": _kind,
}
SETUP_KEYS = frozenset(_SETUP_CHECKS)
_MODEL_CHECKS: dict[str, Check] = {
    "n_ctx": natural,
    "n_batch": positive,
    "n_threads": positive,
    "seed": natural,
    "trust_remote_code": flag,
    "loras": lambda _, value: value,  # `app.config.adapters` has checked it
}
