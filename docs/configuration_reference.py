"""The configuration reference, made of the declarations in `app.config.settings`.

`python -m docs.configuration_reference` prints it as the page `docs/configuration.md`.
"""

from dataclasses import MISSING, fields
from typing import Any

from app.config.schema import AutoField, FreeForm, known_keys, schema_of, section
from app.config.settings import Config
from app.config.variables import CONFIG_PATH, PREFIX, variable_name

_PAGE = """\
# Configuration

The configuration is `config.yaml` in the working directory, or the file that `{path}` names. It is read
once, at the start. An unknown key, a wrong type or an impossible value stops the start with one line that names the
key, what was expected, and the most similar known key. `python -m app.cli check-config` checks it and starts nothing.

Times are in seconds, sizes in bytes.

{table}

## Environment variables

Every key can be set from the environment: the variable is `{prefix}` and the key in capitals, with two underscores
where the key has a dot (`{prefix}SERVER__THREADS=8`, `{prefix}MODEL_PARAMS__N_CTX=1024`). Values are written as in
YAML. A list may also be written with commas. Small letters (`llm_api_server__threads`) mean the same; a variable in
capitals wins.

A whole section can be set as JSON (`{prefix}MODEL_PARAMS='{{"n_ctx": 1024}}'`). It replaces the section of the file;
variables for single keys are applied after it. An empty variable counts as not set. `null` unsets `redis_url` and
`model_name`.

`{prefix}HOST` and `{prefix}PORT`, and the keys `host` and `port` of the file, are other names of `server.host` and
`server.port`, as in the [original LLM API](from-the-original.md); `log_level` and `server.cors_origins` are other names
of `log.level` and `server.allowed_origins`. Without effect are a `{prefix}PORT` that is no number
(Compose takes `127.0.0.1:9000`, Kubernetes sets `tcp://…`) and what Kubernetes sets in pods beside a service named
`llm-api`.

API keys, the Redis password and hub tokens appear in no message.
"""


def reference() -> str:
    """Return the keys as a Markdown table: key, environment variable, what is expected, default, meaning."""
    lines = ["| key | environment variable | value | default | meaning |", "|---|---|---|---|---|"]
    defaults = _defaults(Config)
    for key, field in known_keys(schema_of(Config)()).items():
        if section(field) is None:
            variable = variable_name(key) + ("__NAME" if isinstance(field, FreeForm) else "")
            default = _shown(defaults[key], is_auto=isinstance(field, AutoField))
            expected, meaning = field.metadata["expected"], field.metadata["description"]
            lines.append(f"| `{key}` | `{variable}` | {expected} | `{default}` | {meaning} |")
    return "\n".join(lines)


def page() -> str:
    """Return the reference as a page of the documentation."""
    return _PAGE.format(path=CONFIG_PATH, prefix=PREFIX, table=reference())


def _defaults(settings: Any, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(settings):
        if field.default_factory is not MISSING and (nested := field.default_factory) is not dict:
            values |= _defaults(nested, f"{prefix}{field.name}.")
        elif field.default_factory is not MISSING:
            values[prefix + field.name] = field.default_factory()
        else:
            values[prefix + field.name] = None if field.default is MISSING else field.default
    return values


def _shown(value: Any, *, is_auto: bool) -> str:
    """Return a default as YAML has it."""
    if value is None:
        return "auto" if is_auto else "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else str(value)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - its output is the page
