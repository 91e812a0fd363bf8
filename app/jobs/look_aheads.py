"""Patterns that begin with looking ahead, as passwords and zod's host names do, without it."""

import re
from collections.abc import Iterator

_OPENING = "(?="
_QUANTIFIERS = tuple("*+?{")
_PART = re.compile(r"\\. | \[ \^? \]? (?: \\. | [^\]\\] )* (?: \] | .* ) | .", re.VERBOSE | re.DOTALL)


def separated(pattern: str) -> list[str]:
    """Return patterns which a text must all match to match `pattern`: the rest of it, then what it looks ahead for.

    A pattern that does not begin with `^(?=` is returned alone, as is one that has alternatives beside it.
    """
    ahead: list[str] = []
    start = 1
    while pattern.startswith("^") and pattern.startswith(_OPENING, start):
        end = _end_of_group(pattern, start)
        if end is None or pattern.startswith(_QUANTIFIERS, end):
            return [pattern]
        ahead.append(f"^(?:{pattern[start + len(_OPENING) : end - 1]})")
        start = end
    if not ahead or any(part == "|" and depth == 0 for _, part, depth in _parts(pattern, start)):
        return [pattern]
    return [f"^{pattern[start:]}", *ahead]


def _end_of_group(pattern: str, start: int) -> int | None:
    return next((end for end, part, depth in _parts(pattern, start) if part == ")" and depth == 0), None)


def _parts(pattern: str, start: int) -> Iterator[tuple[int, str, int]]:
    """Yield where each character, escape or set ends, itself, and how many groups are open after it."""
    depth = 0
    for match in _PART.finditer(pattern, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        yield match.end(), match[0], depth
