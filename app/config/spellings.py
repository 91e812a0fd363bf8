"""Other names of our keys: those of the original LLM API (2023), of earlier versions, and what people expect.

docs/from-the-original.md lists the original's.
"""

from typing import Any

from app.errors import ConfigError

KEYS = {
    "host": "server.host",
    "port": "server.port",
    "log_level": "log.level",
    "server.cors_origins": "server.allowed_origins",
}
FAMILIES = {"alpaca": "llama", "vicuna": "llama"}


def respell(tree: dict[str, Any], source: str) -> None:
    """Move the values of other names to ours, in place.

    Raises:
        ConfigError: both are there, and differ.
    """
    for other, key in KEYS.items():
        holder, _, name = other.rpartition(".")
        inside = tree.get(holder) if holder else tree
        if isinstance(inside, dict) and name in inside:
            _move(tree, inside, other, key, source)
    family = tree.get("model_family")
    if isinstance(family, str):
        tree["model_family"] = FAMILIES.get(family, family)


def _move(tree: dict[str, Any], holder: dict[str, Any], other: str, key: str, source: str) -> None:
    section, _, name = key.partition(".")
    inside = tree.setdefault(section, {}) or {}
    if not isinstance(inside, dict):  # the schema says what a section is
        return
    value = holder.pop(other.rpartition(".")[2])
    if inside.get(name, value) != value:
        raise ConfigError(f"{source}: {other} and {key} mean the same and differ; keep {key}")
    inside[name] = value
    tree[section] = inside
