"""What a client can do about a text of llguidance's."""

import re

MAX_CHARACTERS = 200
_TYPES = "null, boolean, number, integer, string, array, object"
_SENTENCES = (
    (
        r"lookarounds not supported|look-around",
        r"looking around (\b, \B, (?=, (?!, (?<) is not supported: write the regular expression without it",
    ),
    (
        r"backreferences are not supported",
        r"referring back (\1) is not supported: write the regular expression without it",
    ),
    (r"regex parse error.*error: ([^\n]+)", "a regular expression is faulty ({0}): correct it"),
    (r"Invalid type: (.*)", f"type has {{0}}, but must be one of {_TYPES}; leave it out if any value will do"),
    (r"Pointer '(.*)' does not exist", "$ref points to {0}, where nothing is: define it there"),
    (r"Resource '(.*)' is not present", "$ref points to {0}, which is not in this schema: put it under $defs"),
    (r"Unsatisfiable schema: (.*)", "no value matches it, as {0}: change one of them"),
)


def as_sentence(error: str) -> str:
    """Return an error of llguidance's in one line, for the known ones with what to do."""
    for pattern, sentence in _SENTENCES:
        match = re.search(pattern, error, re.DOTALL)
        if match is not None:
            return _line(sentence.format(*match.groups()))
    return _line(error.partition("\n<")[0])


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_CHARACTERS]
