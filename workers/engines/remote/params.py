"""`setup_params` and `model_params` of the openai family: which server, and how requests to it look."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from app.errors import ConfigError
from workers.suggestions import did_you_mean


class PromptsAs(StrEnum):
    """What a prompt of `/generate` becomes."""

    COMPLETIONS = "completions"
    CHAT = "chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSetupParams:
    """api_key None: the server wants none."""

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "RemoteSetupParams":
        """Raises ConfigError: one line that names the key; never a value, which may hold a secret."""
        _reject_unknown("setup_params", raw, [f.name for f in fields(cls)])
        given = {key: _text(f"setup_params.{key}", value) for key, value in raw.items() if value is not None}
        for key in ("base_url", "model"):
            if key not in given:
                raise ConfigError(f"setup_params.{key} is missing: model_family openai needs base_url and model")
        return cls(**{**given, "base_url": _url(given["base_url"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModelParams:
    """param_names: what the upstream server calls parameters of ours that OpenAI's API does not have, or has by another
    name (`{top_k: top_k, repeat_penalty: repetition_penalty, max_tokens: max_completion_tokens}`).
    silence_seconds: without a byte from upstream; then the response counts as broken.
    cache_salt_name: what the upstream server calls the text that separates its prefix caches; None: it has none.
    """

    prompts_as: PromptsAs = PromptsAs.COMPLETIONS
    param_names: Mapping[str, str] = field(default_factory=dict)
    silence_seconds: float = 120.0
    cache_salt_name: str | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "RemoteModelParams":
        """Raises ConfigError: names the key and what was expected."""
        _reject_unknown("model_params", raw, list(_READERS))
        given: dict[str, Any] = {key: _READERS[key](f"model_params.{key}", value) for key, value in raw.items()}
        return cls(**given)


def _reject_unknown(section: str, raw: Mapping[str, Any], known: list[str]) -> None:
    for key in raw:
        if key not in known:
            raise ConfigError(f"{section}.{key} is unknown to model_family openai: {did_you_mean(key, known)}")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigError(f"{key} must be a text")
    return value.strip()


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError("setup_params.base_url must be a URL such as https://api.openai.com/v1")
    if parts.username or parts.password:
        raise ConfigError("setup_params.base_url must hold no user or password: give setup_params.api_key")
    return text


def _prompts_as(key: str, value: Any) -> PromptsAs:
    if value not in list(PromptsAs):
        raise ConfigError(f"{key} must be {' or '.join(PromptsAs)}")
    return PromptsAs(value)


def _names(key: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value.values()):
        raise ConfigError(f"{key} must map names of parameters to the upstream server's names")
    return value


def _seconds(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ConfigError(f"{key} must be a number of seconds above 0")
    return float(value)


_READERS = {
    "prompts_as": _prompts_as,
    "param_names": _names,
    "silence_seconds": _seconds,
    "cache_salt_name": _text,
}
