"""The known name that an unknown one nearly is, for the messages of errors."""

import difflib
from collections.abc import Iterable

_NEAR = 0.8  # a typing error or two; names that only look alike, such as prompt and safe_prompt, have less
_LONGEST = 64  # characters that are compared
_LEAST_WORD = 4  # characters of a name that may be the beginning of another: stop_words, stop


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled nearly like this one, or that this one begins with.

    None where no name is near: a wrong hint is worse than none.
    """
    plain, spelled = _plain(name[:_LONGEST]), {_plain(one): one for one in known}
    if match := difflib.get_close_matches(plain, spelled, n=1, cutoff=_NEAR):
        return spelled[match[0]]
    swapped = (one for letters, one in spelled.items() if letters and sorted(letters) == sorted(plain))
    beginnings = (one for one in spelled.values() if len(one) >= _LEAST_WORD and name.startswith(f"{one}_"))
    return next(swapped, None) or next(beginnings, None)


def _plain(name: str) -> str:
    """Return the name as it sounds: maxTokens, max-tokens and max_tokens are one."""
    return "".join(filter(str.isalnum, name.lower()))
