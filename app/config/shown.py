"""The configuration as a person sees it: every key with its value and its source, and no secret."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.config.environment import KeyPath
from app.config.params import names_a_secret
from app.config.schema import FreeForm, known_keys, schema_of, section
from app.config.settings import Config

HIDDEN = "***"
DEFAULT = "default"
DERIVED = "derived from setup_params"
_SECRET_KEYS = frozenset({"auth.api_keys", "webhooks.secret"})
_PASSWORD = re.compile(r"(?<=://)[^@/]*@")


@dataclass(frozen=True, slots=True)
class ShownValue:
    """value: as JSON has it, a secret in it is `***`. source: `default`, a file, a variable, or `derived from …`."""

    key: str
    value: Any
    source: str


def shown_values(config: Config, sources: Mapping[KeyPath, str]) -> Iterator[ShownValue]:
    """Give every key in the order of the reference.

    Args:
        sources: of the values that are no defaults, as `app.config.loader.load_with_sources` returns them.
    """
    for key, field in known_keys(schema_of(Config)()).items():
        if section(field) is not None:
            continue
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        if isinstance(field, FreeForm) and value:
            for name, inner in value.items():
                shown = HIDDEN if names_a_secret(name) else _plain(inner)
                yield ShownValue(f"{key}.{name}", shown, sources.get((key, name), DEFAULT))
        else:
            source = sources.get(tuple(key.split(".")), DERIVED if key == "model_name" else DEFAULT)
            yield ShownValue(key, _without_secret(key, _plain(value)), source)


def _without_secret(key: str, value: Any) -> Any:
    if key in _SECRET_KEYS and value:
        return [HIDDEN] * len(value) if isinstance(value, list) else HIDDEN
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): HIDDEN if names_a_secret(key) else _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int | float | None):
        return value
    return _PASSWORD.sub(f"{HIDDEN}@", str(value))
