"""`setup_params` of the huggingface family beyond where the model comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.errors import ConfigError


class ModelKind(StrEnum):
    """What a model is for: to continue texts (which it can also embed), or to embed them only."""

    CAUSAL = "causal"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSetupParams:
    """tokenizer_repo_id: a repository or local folder; None = the model's own. gguf_file: of the repository or folder.

    config_params: set on the model's config, mappings merged into what is there. model_kind None: as the model's
    architecture says.
    """

    tokenizer_repo_id: str | None = None
    trust_remote_code: bool = False
    config_params: Mapping[str, Any] = field(default_factory=dict)
    gguf_file: str | None = None
    model_kind: ModelKind | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "TransformersSetupParams":
        """Raises ConfigError with the key and what was expected; keys of `model_source` are not looked at."""
        given: dict[str, Any] = {
            key: _READERS[key](key, value) for key, value in raw.items() if key in KEYS and value is not None
        }
        return cls(**given)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(key, "a text")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false")
    return value


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(key, "a mapping of config attributes to values")
    return value


def _kind(key: str, value: Any) -> ModelKind:
    if value not in list(ModelKind):
        raise _wrong(key, " or ".join(ModelKind))
    return ModelKind(value)


def _wrong(key: str, expected: str) -> ConfigError:
    return ConfigError(f"setup_params.{key} must be {expected}")


_READERS = {
    "tokenizer_repo_id": _text,
    "trust_remote_code": _flag,
    "config_params": _mapping,
    "gguf_file": _text,
    "model_kind": _kind,
}
KEYS = frozenset(_READERS)
