"""YAML as the configuration reads it: PyYAML's safe loader, with `1e-5` as a number."""

import re
from typing import Any

import yaml

_NO_INPUT = re.compile(r"'(<[a-z ]+>|[^\w\s'\"]|\\t)'")  # the name of a token, or punctuation


class _Loader(yaml.SafeLoader):
    pass


# YAML 1.1 requires a dot in a float; people and JSON write 1e-5
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse YAML. Raises `yaml.YAMLError`, whose text may quote the input: show `fault_in` instead."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def fault_in(error: yaml.YAMLError) -> str:
    """Return where the parser stopped and why, without the text there, which may be a secret.

    Such as `line 9, column 1: while scanning a quoted scalar that begins in line 8, found unexpected end of stream`.
    """
    if not isinstance(error, yaml.MarkedYAMLError):
        return "some line"
    context, problem = _harmless(error.context), _harmless(error.problem)
    begin, end = error.context_mark, error.problem_mark or error.context_mark
    if context and begin and end and begin.line != end.line:
        context = f"{context} that begins in line {begin.line + 1}"
    where = f"line {end.line + 1}, column {end.column + 1}" if end else "some line"
    words = ", ".join(filter(None, (context, problem)))
    return f"{where}: {words}" if words else where


def _harmless(words: str | None) -> str:
    """Cut the parser's words where they begin to quote the input."""
    unquoted = _NO_INPUT.sub("\0\\1\0", words or "")
    kept, *cut = re.split("['\"]", unquoted, maxsplit=1)
    return kept.replace("\0", "'") + ("..." if cut else "")
