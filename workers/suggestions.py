"""Names to offer in a message when the one given does not fit."""

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_NAMES_SHOWN = 4


def closest(name: str, candidates: Iterable[str]) -> str:
    """A few of the candidates, likest first, as a list to show in a message; "" where there are none."""
    names = sorted(set(candidates))
    likest = get_close_matches(name, names, n=_MAX_NAMES_SHOWN, cutoff=0.0) if name else names[:_MAX_NAMES_SHOWN]
    return ", ".join(likest) + (", ..." if len(names) > len(likest) else "")
