"""Checks of values in `setup_params` and `model_params`.

Each check takes the key as the user knows it and the value, and returns the value. It raises `ConfigError` with the
key, what is expected, and the value.
"""

from collections.abc import Callable, Mapping
from typing import Any

from app.errors import ConfigError

Check = Callable[[str, Any], Any]


def wrong(key: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{key} must be {expected}, not {value!r}")


def checked(section: str, given: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Return the values of `given` that have a check and are not null."""
    present = {key: value for key, value in given.items() if key in checks and value is not None}
    return {key: checks[key](f"{section}.{key}", value) for key, value in present.items()}


def respelled(section: str, given: Mapping[str, Any], spellings: Mapping[str, str]) -> dict[str, Any]:
    """Return `given` with the keys of `spellings` under the names that these stand for.

    Raises:
        ConfigError: a key is there under two names, with different values.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = spellings.get(key, key)
        others = [other for other in given if other != key and spellings.get(other, other) == name]
        if any(given[other] != value for other in others):
            raise ConfigError(f"{section}.{key} and {section}.{others[0]} mean the same and differ: keep {name}")
        values[name] = value
    return values


def integer(key: str, value: Any, least: int | None = None) -> int:
    expected = "an integer" if least is None else f"an integer of at least {least}"
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        raise wrong(key, expected, value)
    return value


def natural(key: str, value: Any) -> int:
    return integer(key, value, least=0)


def positive(key: str, value: Any) -> int:
    return integer(key, value, least=1)


def flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(key, "true or false", value)
    return value


def text(key: str, value: Any, expected: str = "a text") -> str:
    if not isinstance(value, str) or not value.strip():
        raise wrong(key, expected, value)
    return value
