"""`model_params.loras`, the LoRA adapters by name that requests may choose, and the section `adapters`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from app.config.schema import flag
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.config.settings import Config

_SOURCES = ("path", "repo_id")
_KEYS = frozenset({*_SOURCES, "filename", "revision", "scale"})
_EXPECTED = "the path of an adapter, or a mapping with path, or repo_id and filename, and perhaps scale"
MOST_SCALE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptersConfig:
    runtime_loading: Annotated[
        bool,
        flag(
            "Let `POST /v1/load_lora_adapter` and `POST /v1/unload_lora_adapter` load and unload LoRA adapters, of "
            "`models_dir` and of the Hugging Face Hub, while the service runs. In vLLM it is "
            "`VLLM_ALLOW_RUNTIME_LORA_UPDATING`."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter: a file (llama) or a folder (transformers), of this machine or of the Hugging Face Hub.

    scale: what its effect is multiplied by, where a request does not say. version: empty for an adapter of the
    configuration; one that was loaded later has its own, so that two of the same name are never taken for each other.
    """

    name: str
    path: str | None = None
    repo_id: str | None = None
    filename: str | None = None
    revision: str = "main"
    scale: float = 1.0
    version: str = ""


def configured_adapters(config: "Config") -> dict[str, Adapter]:
    """Return the adapters of the configuration by name, in its order. Raises ConfigError."""
    given = config.model_params.get("loras") or {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) and name for name in given):
        raise ConfigError(f"model_params.loras must be a mapping of names to adapters, each {_EXPECTED}")
    for name in given:
        if is_name_of_model(config, name):
            raise ConfigError(f"model_params.loras.{name}: the model has this name already; give the adapter another")
    return {name: _adapter(name, value) for name, value in given.items()}


def is_name_of_model(config: "Config", name: str) -> bool:
    """Return whether requests name the model itself so."""
    return name in (config.model_name, *config.model_aliases, "default")


def _adapter(name: str, value: Any) -> Adapter:
    key = f"model_params.loras.{name}"
    values = {"path": value} if isinstance(value, str) else value
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} must be {_EXPECTED}")
    values = {key: value for key, value in values.items() if value is not None}
    if unknown := [one for one in values if one not in _KEYS]:
        raise ConfigError(f"{key}.{unknown[0]} is unknown: known are {', '.join(sorted(_KEYS))}")
    if len([source for source in _SOURCES if source in values]) != 1:
        raise ConfigError(f"{key} must be {_EXPECTED}")
    if "path" in values and values.keys() & {"filename", "revision"}:
        raise ConfigError(f"{key}: filename and revision go with repo_id; leave them out beside path")
    scale = values.pop("scale", 1.0)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not abs(scale) <= MOST_SCALE:
        raise ConfigError(f"{key}.scale must be a number from -{MOST_SCALE:g} to {MOST_SCALE:g}")
    for part, text in values.items():
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise ConfigError(f"{key}.{part} must be one line of text and not empty")
    return Adapter(name=name, scale=float(scale), **values)
