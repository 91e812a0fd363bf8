"""The known name that an unknown one nearly is, for the messages of errors."""

import difflib
import re
from collections.abc import Iterable

_NEAR = 0.8  # a typing error or two; names that only look alike, such as prompt and safe_prompt, have less
_NEAR_WORD = 0.65  # of each word: max_prompt_tokens and max_output_tokens differ in one that means something else
_NEAR_AS_ONE = 0.9  # of names that are not divided into the same number of words: responsformat, response_format
_LONGEST = 64  # characters that are compared
_LEAST_WORD = 4  # characters of a name that may be the beginning of another: stop_words, stop
_SAYS_NOTHING = frozenset({"array", "count", "list", "n", "number", "param", "sequences", "strings", "value", "words"})
"""What a name may have more than the known one: input_type is something else than input."""
_WORD = re.compile(r"[A-Z]?[^\W_A-Z]+|[A-Z]+")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled nearly like this one, that this one begins with, or that adds `_id` to it.

    None where no name is near: a wrong hint is worse than none.
    """
    name = name[:_LONGEST]
    plain, spelled = _plain(name), {_plain(one): one for one in known}
    for match in difflib.get_close_matches(plain, spelled, n=3, cutoff=_NEAR):
        if _is_typing_error(name, spelled[match]):
            return spelled[match]
    swapped = (one for letters, one in spelled.items() if letters and sorted(letters) == sorted(plain))
    begin, _, end = name.rpartition("_")
    beginning = spelled.get(_plain(begin)) if end in _SAYS_NOTHING and len(begin) >= _LEAST_WORD else None
    return next(swapped, None) or beginning or spelled.get(f"{plain}id")


def _is_typing_error(name: str, known: str) -> bool:
    """Return whether each word of a name that is spelled nearly like the known one is nearly the known one's word."""
    plain, right = _plain(name), _plain(known)
    words, right_words = _WORD.findall(name), _WORD.findall(known)
    if plain == right or len(words) != len(right_words):
        return _likeness(plain, right) >= _NEAR_AS_ONE
    return all(
        _likeness(_plain(one), _plain(other)) >= _NEAR_WORD for one, other in zip(words, right_words, strict=True)
    )


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _plain(name: str) -> str:
    """Return the name as it sounds: maxTokens, max-tokens and max_tokens are one."""
    return "".join(filter(str.isalnum, name.lower()))
