"""Keys and families of the original LLM API (2023), as other names of ours. docs/from-the-original.md lists them."""

from typing import Any

from app.errors import ConfigError

KEYS = {"host": "server.host", "port": "server.port"}
FAMILIES = {"alpaca": "llama", "vicuna": "llama"}


def respell(tree: dict[str, Any], source: str) -> None:
    """Move the values of the original's keys to ours, in place.

    Raises:
        ConfigError: both are there, and differ.
    """
    for old, key in KEYS.items():
        if old in tree:
            section, _, name = key.partition(".")
            inside = tree.setdefault(section, {}) or {}
            if not isinstance(inside, dict):  # the schema says what a section is
                continue
            value = tree.pop(old)
            if inside.get(name, value) != value:
                raise ConfigError(f"{source}: {old} and {key} mean the same and differ; keep {key}")
            tree[section] = inside | {name: value}
    family = tree.get("model_family")
    if isinstance(family, str):
        tree["model_family"] = FAMILIES.get(family, family)
