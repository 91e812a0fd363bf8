"""The environment's part of the configuration: `LLM_API_SERVER__PORT=80` -> `server.port`.

A variable names a key, or a key in a section after two underscores, or a whole section as JSON. A section given whole
replaces the file's; single keys are laid over it afterwards. An empty variable counts as unset, for compose
files pass those.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

import yaml
from marshmallow import fields

from app.config.schema import ConfigSchema, known_keys, section
from app.config.yaml_file import parse_yaml
from app.errors import ConfigError

PREFIX = "LLM_API_"
CONFIG_PATH = "LLM_API_CONFIG"
_NOT_A_KEY = frozenset({CONFIG_PATH})
# free-form, but texts whatever they look like: a revision such as 1234567 is no number
_TEXTS_IN_SETUP_PARAMS = frozenset(
    {"repo_id", "filename", "revision", "path", "package", "token", "base_url", "model", "api_key"}
)

KeyPath = tuple[str, ...]


def overlay(tree: dict[str, Any], environ: Mapping[str, str], schema: ConfigSchema) -> dict[KeyPath, str]:
    """Lays the environment's values over `tree`, in place; returns which variable set which key.

    Raises:
        ConfigError: for a variable that names no key, or whose value does not parse.
    """
    origins: dict[KeyPath, str] = {}
    named = {name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in _NOT_A_KEY}
    for name in sorted(named, key=lambda name: (name.count("__"), name)):
        path = _path(name, schema)
        if named[name]:
            _put(tree, path, _value(name, path, named[name], schema))
            origins[path] = name
    return origins


def _path(name: str, schema: ConfigSchema) -> KeyPath:
    path = tuple(name.removeprefix(PREFIX).lower().split("__"))
    field = schema.fields.get(path[0])
    nested = section(field)
    if isinstance(field, fields.Dict):
        known = all(path)
    elif nested:
        known = len(path) == 1 or (len(path) == 2 and path[1] in nested.fields)
    else:
        known = field is not None and len(path) == 1
    if not known:
        raise ConfigError(f"environment: unknown variable {name}; {_advice(name, schema)}")
    return path


def _advice(name: str, schema: ConfigSchema) -> str:
    variables = [variable_name(key) for key in known_keys(schema)]
    near = difflib.get_close_matches(name, [*variables, CONFIG_PATH], n=1)
    expected = f"expected {PREFIX} and a key of config.yaml, two underscores where it has a dot"
    return expected + (f"; did you mean {near[0]}?" if near else "")


def variable_name(key: str) -> str:
    """`server.port` -> `LLM_API_SERVER__PORT`."""
    return PREFIX + key.upper().replace(".", "__")


def _value(name: str, path: KeyPath, text: str, schema: ConfigSchema) -> Any:
    field = schema.fields[path[0]]
    nested = section(field)
    if len(path) == 1 and (nested or isinstance(field, fields.Dict)):
        return _json_object(name, text)
    if nested:
        field = nested.fields[path[1]]
    if isinstance(field, fields.String):
        return None if field.allow_none and text == "null" else text
    if isinstance(field, fields.List) and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    if path[0] == "setup_params" and path[-1] in _TEXTS_IN_SETUP_PARAMS:
        return text
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name}: expected a YAML value, got text that is none") from None


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{name}: expected a JSON object such as " + '{"key": "value"}')
    return parsed


def _put(tree: dict[str, Any], path: KeyPath, value: Any) -> None:
    *parents, last = path
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = value
