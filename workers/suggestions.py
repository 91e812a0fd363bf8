"""Names to offer in a message when the one given does not fit."""

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_NAMES_SHOWN = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the advice for an unknown name: the known name that is most like it, or all known names."""
    nearest = get_close_matches(name, names := list(known), n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(names)}"


def closest(name: str, candidates: Iterable[str]) -> str:
    """A few of the candidates, likest first, as a list to show in a message; "" where there are none."""
    names = sorted(set(candidates))
    likest = get_close_matches(name, names, n=_MAX_NAMES_SHOWN, cutoff=0.0) if name else names[:_MAX_NAMES_SHOWN]
    return ", ".join(likest) + (", ..." if len(names) > len(likest) else "")
