"""`model_params` of the llama family: how a GGUF file is loaded and run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from workers.engines.shared.configured_template import configured_template
from workers.engines.shared.options import Check, checked, flag, integer, respelled, text, wrong
from workers.suggestions import did_you_mean

logger = logging.getLogger(__name__)

GONE = {
    "n_parts": "a GGUF file names its own parts",
    "low_vram": "use n_gpu_layers to bound the memory taken on the GPU",
    "lora_base": "an adapter applies to a quantized model directly",
}

SPELLINGS = {"ctx_size": "n_ctx", "num_threads": "n_threads", "batch_size": "n_batch"}
"""Names that the original LLM API read, in its documentation or in its code."""

_DRAFT_KEYS = ("path", "package", "repo_id", "filename", "revision", "max_tokens")
MAX_DRAFT_TOKENS = 32  # the loop verifies no longer drafts


class CacheType(IntEnum):
    """What keys and values can be kept as: `enum ggml_type` of ggml.h, those of llama.cpp's `--cache-type-k`."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    IQ4_NL = 20
    BF16 = 30

    @property
    def is_quantized(self) -> bool:
        return self not in (CacheType.F32, CacheType.F16, CacheType.BF16)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftParams:
    """`model_params.draft`: a smaller model that guesses tokens.

    source: the keys that name its file, as in `setup_params`. max_tokens: guesses in a row.
    """

    source: Mapping[str, Any]
    max_tokens: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaModelParams:
    """Defaults apply where a key is missing or null.

    n_ctx: cells of one slot, prompt and completion together; None = the training context, at most 2048; 0 = the
    training context. n_gpu_layers: None = as many as fit; negative = all. n_batch: tokens of one step.
    last_n_tokens_size: window of the penalties, tokens. tensor_split: share of each GPU. rope_*: 0 = the model's.
    chat_template: the Jinja source; None = the model's own. type_k, type_v: of the keys and values in the cache.
    repack: rearrange the weights while they load, for ggml's kernels on CPUs; None = where these are the faster ones.
    flash_attn: None = where the model and the device can. loras: see `app.config.adapters`. draft: None = no draft
    model.
    """

    n_ctx: int | None = None
    n_gpu_layers: int | None = None
    seed: int | None = None
    use_mmap: bool = True
    use_mlock: bool = False
    repack: bool | None = None
    n_threads: int | None = None
    n_batch: int = 512
    last_n_tokens_size: int = 64
    lora_path: Path | None = None
    loras: Mapping[str, Any] | None = None
    tensor_split: tuple[float, ...] = ()
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    chat_template: str | None = None
    type_k: CacheType = CacheType.F16
    type_v: CacheType = CacheType.F16
    flash_attn: bool | None = None
    draft: DraftParams | None = None
    verbose: bool = False

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "LlamaModelParams":
        """Check and convert the section; log one warning for each key that llama.cpp no longer has.

        Raises:
            ConfigError: an unknown key or a wrong value; names the key and what was expected.
        """
        raw = respelled("model_params", raw, SPELLINGS)
        for key in raw:
            if key in GONE:
                logger.warning("model_params.%s is ignored, llama.cpp no longer has it: %s", key, GONE[key])
            elif key not in _CHECKS:
                raise ConfigError(f"model_params.{key} is unknown: {did_you_mean(key, [*_CHECKS, *GONE])}")
        params = cls(**checked("model_params", raw, _CHECKS))
        if params.type_v.is_quantized and params.flash_attn is False:
            name = params.type_v.name.lower()
            raise ConfigError(f"model_params.type_v {name} needs flash attention: leave out model_params.flash_attn")
        return params

    @property
    def of_draft(self) -> "LlamaModelParams":
        """Those with which the draft model is loaded: all that is not of the model itself."""
        own = replace(self, lora_path=None, loras=None, chat_template=None, draft=None)
        return replace(own, rope_freq_base=0.0, rope_freq_scale=0.0)


def _int32(key: str, value: Any) -> int:
    """A number that llama.cpp keeps in 32 bits."""
    if abs(integer(key, value)) >= 2**31:
        raise wrong(key, "an integer of 32 bits", value)
    return int(value)


def _at_least(least: int) -> Check:
    return lambda key, value: _int32(key, integer(key, value, least))


def _number(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise wrong(key, "a number of at least 0", value)
    return float(value)


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise wrong(key, "a list of numbers", value)
    return tuple(_number(key, number) for number in value)


def _path(key: str, value: Any) -> Path:
    return Path(text(key, value, "the path of a file")).expanduser()


def _template(key: str, value: Any) -> str:
    return configured_template(text(key, value, "a Jinja template, or the path of one"))


def _draft(key: str, value: Any) -> DraftParams:
    if not isinstance(value, Mapping):
        raise wrong(key, "a mapping such as {repo_id: owner/name, filename: small.gguf}", value)
    for name in value:
        if name not in _DRAFT_KEYS:
            raise ConfigError(f"{key}.{name} is unknown: {did_you_mean(str(name), _DRAFT_KEYS)}")
    source = {name: given for name, given in value.items() if name != "max_tokens" and given is not None}
    return DraftParams(source=source, **checked(key, value, {"max_tokens": _draft_tokens}))


def _draft_tokens(key: str, value: Any) -> int:
    if not 1 <= integer(key, value) <= MAX_DRAFT_TOKENS:
        raise wrong(key, f"an integer from 1 to {MAX_DRAFT_TOKENS}", value)
    return int(value)


def _cache_type(key: str, value: Any) -> CacheType:
    """By llama.cpp's name, or by the number that llama-cpp-python takes."""
    names = {each.name.lower(): each for each in CacheType}
    if isinstance(value, str) and value.lower() in names:
        return names[value.lower()]
    if isinstance(value, int) and not isinstance(value, bool) and value in list(CacheType):
        return CacheType(value)
    raise wrong(key, f"one of {', '.join(names)}", value)


_CHECKS: dict[str, Check] = {
    "n_ctx": _at_least(0),
    "n_gpu_layers": _int32,
    "seed": integer,
    "use_mmap": flag,
    "use_mlock": flag,
    "repack": flag,
    "n_threads": _at_least(1),
    "n_batch": _at_least(1),
    "last_n_tokens_size": _at_least(-1),
    "lora_path": _path,
    "loras": lambda _, value: value,  # `app.config.adapters` has checked it
    "tensor_split": _numbers,
    "rope_freq_base": _number,
    "rope_freq_scale": _number,
    "chat_template": _template,
    "type_k": _cache_type,
    "type_v": _cache_type,
    "flash_attn": flag,
    "draft": _draft,
    "verbose": flag,
}
