"""The configuration's environment variables: `LLM_API_SERVER__PORT=80` sets `server.port`.

A variable names a key, or a key in a section after two underscores, or a whole section as JSON. A whole section
replaces the file's; single keys are applied after it. An empty variable counts as not set, because compose files pass
empty ones. The variables that docker-compose.yaml itself reads, those that Kubernetes sets in every pod beside a
service named `llm-api`, and those of the command line's clients have the same prefix; they set no key. `LLM_API_PORT`
is of the first two and a key of ours: a number is the port. Small letters mean the same.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml
from marshmallow import fields

from app.config import spellings
from app.config.nearest_name import nearest_name
from app.config.schema import FreeForm, Keys, section
from app.config.variables import CONFIG_PATH, PORT, PREFIX, variable_name
from app.config.yaml_file import parse_yaml
from app.errors import ConfigError

_OF_COMPOSE = frozenset(PREFIX + name for name in ("USER", "WORKER", "REDIS_MEMORY"))
_OF_KUBERNETES = re.compile(PREFIX + r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
EXIT_DELAY = "LLM_API_EXIT_DELAY"  # app/config/startup.py
OF_CLIENTS = frozenset(PREFIX + name for name in ("URL", "KEY"))
"""Where commands such as `llm-api chat` find the service, and their API key (app/cli/service_options.py)."""
# free-form, but always texts: a revision such as 1234567 is not a number
_TEXTS_IN_SETUP_PARAMS = frozenset(
    {"repo_id", "filename", "revision", "path", "package", "token", "base_url", "model", "api_key"}
)

KeyPath = tuple[str, ...]


def in_capitals(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this service's variables in capitals, as `llm_api_port` meant `LLM_API_PORT` to the
    original LLM API. One that is set in capitals wins.
    """
    own = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    others = {name: value for name, value in environ.items() if name not in own}
    return {**others, **{name.upper(): own[name] for name in sorted(own, key=str.isupper)}}


def overlay(tree: dict[str, Any], environ: Mapping[str, str], keys: Keys) -> dict[KeyPath, str]:
    """Apply the environment's values to `tree`, in place. Return which variable set which key.

    Raises:
        ConfigError: a variable names no key, or its value does not parse.
    """
    origins: dict[KeyPath, str] = {}
    others = {CONFIG_PATH, EXIT_DELAY, *OF_CLIENTS, *variables_of_others(environ)}
    named = {name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in others}
    for name in sorted(named, key=_precision):
        path = _path(name, keys)
        if named[name]:
            _put(tree, path, _value(name, path, named[name], keys.get(".".join(path))))
            origins[path] = name
    return origins


def variables_of_others(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that are set for docker-compose.yaml or by Kubernetes, and are no part of the configuration.

    `LLM_API_WORKER` is the name of an image there; as JSON it is the section `worker`.
    """
    return sorted(name for name, value in environ.items() if _is_of_others(name, value.strip()))


def _is_of_others(name: str, value: str) -> bool:
    if name == PORT:
        return not value.isdecimal()
    return (name in _OF_COMPOSE and not value.startswith("{")) or _OF_KUBERNETES.fullmatch(name) is not None


def _precision(name: str) -> tuple[bool, int, str]:
    """Sections before their keys, and other names before ours: what comes later wins."""
    return _key(name) not in spellings.KEYS, name.count("__"), name


def _path(name: str, keys: Keys) -> KeyPath:
    key = _key(name)
    path = tuple(spellings.KEYS.get(key, key).split("."))
    is_free = isinstance(keys.get(path[0]), FreeForm) and all(path)
    if is_free or ".".join(path) in keys:
        return path
    names = [variable.removeprefix(PREFIX) for variable in (*map(variable_name, keys), CONFIG_PATH)]
    near = nearest_name(name.removeprefix(PREFIX), names)
    advice = f"expected {PREFIX} and a key of config.yaml, two underscores where it has a dot"
    raise ConfigError(
        f"environment: unknown variable {name}; {advice}" + (f"; did you mean {PREFIX}{near}?" if near else "")
    )


def _key(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def _value(name: str, path: KeyPath, text: str, field: object) -> Any:
    """Parse a value. field: None for a key in a free-form section."""
    if section(field) or isinstance(field, FreeForm):
        return _json_object(name, text)
    if isinstance(field, fields.String):
        return None if field.allow_none and text == "null" else text
    if isinstance(field, fields.List) and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    if path[0] == "setup_params" and path[-1] in _TEXTS_IN_SETUP_PARAMS:
        return text
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name}: expected a YAML value, got text that is not YAML") from None


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
