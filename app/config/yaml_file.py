"""YAML as the configuration reads it: PyYAML's safe loader, with `1e-5` as a number."""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    pass


# YAML 1.1 requires a dot in a float; people and JSON write 1e-5
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse YAML. Raises `yaml.YAMLError`, whose text may quote the input: show `where` instead."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def where(error: yaml.YAMLError) -> str:
    """Return `line 3, column 5`, without the text there, which may be a secret."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "some line"
