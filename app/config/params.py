"""The free-form sections of the configuration, `setup_params` and `model_params`: read-only, no secrets in the repr."""

from collections.abc import Mapping
from typing import Any, NoReturn

_SECRET_WORDS = ("token", "password", "secret", "api_key")
HIDDEN = "'***'"


def names_a_secret(key: object) -> bool:
    """Return whether a value under `key` must not be shown. Errs on the safe side: `eos_token` is hidden too."""
    return any(word in str(key).lower() for word in _SECRET_WORDS)


class Params(dict[str, Any]):
    """A dict that cannot be changed and whose repr hides secrets, at any depth. A copy made with `dict()` is plain."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__({key: _frozen(value) for key, value in (values or {}).items()})

    def __repr__(self) -> str:
        shown = (f"{key!r}: {HIDDEN if names_a_secret(key) else repr(value)}" for key, value in self.items())
        return "{" + ", ".join(shown) + "}"

    # copy and pickle would otherwise fill an empty dict item by item
    def __reduce__(self) -> tuple[type["Params"], tuple[dict[str, Any]]]:
        return Params, (dict(self),)

    def _reject(self, *_args: object, **_named: object) -> NoReturn:
        raise TypeError("the configuration is frozen: change config.yaml or the environment and start again")

    __setitem__ = __delitem__ = __ior__ = _reject
    clear = pop = popitem = setdefault = update = _reject


def _frozen(value: object) -> object:
    if isinstance(value, Mapping):
        return Params(value)
    if isinstance(value, list):
        return [_frozen(item) for item in value]  # stays a list: the families and JSON expect one
    return value
