"""Digits and words in regular expressions are those of ASCII, as in ECMA 262 and in other servers.

To llguidance they are those of every script, but not in the patterns of a JSON Schema, which it reads as ECMA 262 does.
White space is that of Unicode in all of them.
"""

import re

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CLASSES = {"d": "[0-9]", "D": "[^0-9]", "w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]"}
"""Also within a character class, as one class may stand in another."""


def with_ascii_classes(text: str) -> str:
    """Return a regular expression, or a grammar in Lark, whose strings have none of these escapes."""
    return _ESCAPE.sub(lambda match: _CLASSES.get(match[1], match[0]), text)
