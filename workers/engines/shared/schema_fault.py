"""Finds the part of a JSON Schema that llguidance refuses, as its errors do not say where the fault is."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from app.jobs.json_schema import Path, resolved, with_parts

MAX_SECONDS = 0.2  # of all trials; each takes 1 ms or less
_DEFINITIONS = ("$defs", "definitions")


def faulty_part(root: dict[str, Any], fails: Callable[[dict[str, Any]], bool]) -> Path:
    """Return the path of the smallest part found that fails by itself.

    fails: whether a schema has the fault of the whole.
    """
    deadline = time.monotonic() + MAX_SECONDS
    definitions = {key: root[key] for key in _DEFINITIONS if key in root}
    faulty: Path = ()
    seen = {faulty}
    while True:
        for path, part in _parts(root, faulty):
            if time.monotonic() > deadline:
                return faulty
            if path not in seen and fails({**part, **definitions}):
                faulty = path
                seen.add(path)
                break
        else:
            return faulty


def _parts(root: dict[str, Any], path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the parts of the part at `path`, and what it refers to, with their paths."""
    schema: Any = root
    for name in path:
        schema = schema[int(name)] if isinstance(schema, list) else schema[name]
    found: list[tuple[Path, dict[str, Any]]] = []

    def keep(part: Any, more: Path) -> Any:
        if isinstance(part, dict) and more[0] not in _DEFINITIONS:
            found.append((path + more, part))
        return part

    target = resolved(schema, root)
    if target is not schema and isinstance(target, dict):
        names = schema["$ref"].removeprefix("#/").split("/")
        found.append((tuple(name.replace("~1", "/").replace("~0", "~") for name in names), target))
    with_parts(schema, keep)
    yield from found
