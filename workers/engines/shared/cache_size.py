"""How many slots of how many cells: from the configuration, the model and the memory of this machine."""

import logging

from app.errors import ModelUnavailable
from workers.engines.shared.resources import available_memory_bytes

logger = logging.getLogger(__name__)

MAX_SLOTS = 32  # beyond, every sequence waits longer for a step and the sum of tokens per second hardly grows
DEFAULT_MAX_CELLS = 2048
CACHE_SHARE = 0.5  # of the available memory; the rest is for activations, the embedding context and other processes
_MIB = 1024 * 1024


def cells_per_slot(trained_tokens: int, n_ctx: int | None) -> int:
    """Return `n_ctx`; for None the training context, at most `DEFAULT_MAX_CELLS`; for 0 the training context."""
    if n_ctx is None:
        return min(trained_tokens, DEFAULT_MAX_CELLS)
    if n_ctx > trained_tokens:
        logger.warning(
            "model_params.n_ctx %d is beyond the %d tokens it was trained with: beyond them its text is nonsense",
            n_ctx,
            trained_tokens,
        )
    return n_ctx or trained_tokens


def choose_slots(
    cells: int, slot_bytes: int, wanted: int | None, available: int | None = None, *, reserved: int = 0
) -> int:
    """Return the configured number of slots, or as many as fit.

    Args:
        slot_bytes: of memory, of one slot of `cells` cells.
        available: bytes of memory where the cache will lie; None = what is free on this machine.
        reserved: bytes of them that something else will need.

    Raises:
        ModelUnavailable: what is configured needs more memory than is free; the message has both numbers.
    """
    slot_bytes = max(1, slot_bytes)
    if available is None:
        available = available_memory_bytes()
    slots = wanted or max(1, min(MAX_SLOTS, int((available - reserved) * CACHE_SHARE / slot_bytes)))
    if slots * slot_bytes > available:
        raise ModelUnavailable(
            f"{slots} slots of {cells} cells need {slots * slot_bytes // _MIB} MiB of memory and "
            f"{available // _MIB} MiB are available: set a smaller model_params.n_ctx or worker.slots"
        )
    logger.info(
        "%d slots of %d cells: %d MiB of %d MiB available", slots, cells, slots * slot_bytes // _MIB, available // _MIB
    )
    return slots
