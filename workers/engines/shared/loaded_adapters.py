"""Finds the loaded LoRA adapters that a request names."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from app.errors import InvalidRequest
from app.jobs.job import AdapterUse

Loaded = TypeVar("Loaded")


def loaded_adapters(
    uses: Sequence[AdapterUse], loaded: Mapping[tuple[str, str], Loaded]
) -> tuple[tuple[Loaded, float], ...]:
    """Return each adapter that a request uses, with its scale.

    Args:
        loaded: by name and version.

    Raises:
        InvalidRequest: one is not loaded.
    """
    for use in uses:
        if (use.name, use.version) not in loaded:
            reason = f"the adapter {use.name!r} is not loaded any more; choose another"
            raise InvalidRequest(reason, errors={"model": [reason]})
    return tuple((loaded[use.name, use.version], use.scale) for use in uses)
