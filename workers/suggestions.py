"""Names to offer in a message when the one given does not fit."""

from collections.abc import Iterable
from difflib import get_close_matches

from app.config.nearest_name import nearest_name

_MAX_NAMES_SHOWN = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the advice for an unknown name: the known name that it nearly is, or all known names."""
    near = nearest_name(name, names := list(known))
    return f"did you mean {near}?" if near else f"known are {', '.join(names)}"


def closest(name: str, candidates: Iterable[str]) -> str:
    """A few of the candidates, likest first, as a list to show in a message; "" where there are none."""
    names = sorted(set(candidates))
    likest = get_close_matches(name, names, n=_MAX_NAMES_SHOWN, cutoff=0.0) if name else names[:_MAX_NAMES_SHOWN]
    return ", ".join(likest) + (", ..." if len(names) > len(likest) else "")
