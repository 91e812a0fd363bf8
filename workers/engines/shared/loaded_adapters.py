"""What adapters of all families share: how a request's are found, and why some are refused."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from app.errors import InvalidRequest
from app.jobs.job import AdapterUse

Loaded = TypeVar("Loaded")

ACTIVATED = (
    "an activated adapter (aLoRA): it is trained for what follows its invocation tokens, and adapters here change the "
    "whole prompt: use a LoRA adapter without invocation tokens"
)


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
