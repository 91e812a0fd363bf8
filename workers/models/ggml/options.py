"""`setup_params.convert` and `setup_params.migrate`: whether a file of an old format is converted, and with what.

The original project had a script behind each key, for different formats. Here they mean the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import ConfigError
from workers.suggestions import did_you_mean

KEYS = frozenset({"convert", "migrate"})
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionOptions:
    """What an old file does not hold.

    eps: of the RMS norm. None: 1e-5 with grouped queries, else 5e-6, which llama.cpp used for all files of that time.
    n_ctx: the context the model was trained with, tokens. None: 4096 with grouped queries, else 2048.
    n_gqa: query heads for each key and value head; None: what the file has. Another number is an error.
    """

    eps: float | None = None
    n_ctx: int | None = None
    n_gqa: int | None = None

    @property
    def key(self) -> list[str]:
        """What distinguishes the files that these options make of one old file."""
        return [str(self.eps), str(self.n_ctx)]


def conversion_options(setup_params: Mapping[str, Any]) -> ConversionOptions | None:
    """Return what to convert with; None: the operator does not ask for it.

    Raises:
        ConfigError: a key or value that is wrong.
    """
    given = {key: setup_params[key] for key in sorted(KEYS & setup_params.keys()) if setup_params[key] is not None}
    options: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, Mapping):
            options |= _checked(key, value)
        elif not isinstance(value, bool):
            raise ConfigError(f"setup_params.{key} must be true, false or a mapping such as {{eps: 1e-5}}")
    if not any(isinstance(value, Mapping) or value for value in given.values()):
        return None
    return ConversionOptions(**options)


def _checked(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if name not in _CHECKS:
            raise ConfigError(f"setup_params.{key}.{name} is unknown: {did_you_mean(str(name), _CHECKS)}")
        expected, is_right = _CHECKS[name]
        if value is not None and (isinstance(value, bool) or not is_right(value)):
            raise ConfigError(f"setup_params.{key}.{name} must be {expected}, not {value!r}")
    return dict(options)


def _is_epsilon(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 < value <= _MOST


_CHECKS = {
    "eps": ("a number above 0 and below 1", _is_epsilon),
    "n_ctx": (f"a whole number from 1 to {_MOST}", _is_count),
    "n_gqa": (f"a whole number from 1 to {_MOST}", _is_count),
}
