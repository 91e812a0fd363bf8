"""How many slots of how many cells: from the configuration, the model and the memory of this machine."""

import logging

from app.contract.errors import ModelUnavailable
from workers.engines.llama.machine import available_memory_bytes
from workers.engines.llama.model import Model

logger = logging.getLogger(__name__)

MAX_SLOTS = 32  # beyond, a step gets longer for everybody and the sum of tokens per second hardly grows
DEFAULT_MAX_CELLS = 2048
CACHE_SHARE = 0.5  # of the available memory; the rest is for activations, the embedding context and the neighbours
_MIB = 1024 * 1024


def cells_per_slot(model: Model, n_ctx: int | None) -> int:
    """`n_ctx`; None = the training context, at most `DEFAULT_MAX_CELLS`; 0 = the training context."""
    if n_ctx is None:
        return min(model.trained_tokens, DEFAULT_MAX_CELLS)
    if n_ctx > model.trained_tokens:
        logger.warning(
            "model_params.n_ctx %d is beyond the %d tokens the model was trained with: expect nonsense at the end",
            n_ctx,
            model.trained_tokens,
        )
    return n_ctx or model.trained_tokens


def choose_slots(cells: int, bytes_per_cell: int, wanted: int | None) -> int:
    """The configured number of slots, or as many as fit.

    Raises:
        ModelUnavailable: what is configured needs more memory than there is; says both numbers.
    """
    available, slot_bytes = available_memory_bytes(), max(1, cells * bytes_per_cell)
    slots = wanted or max(1, min(MAX_SLOTS, int(available * CACHE_SHARE / slot_bytes)))
    if slots * slot_bytes > available:
        raise ModelUnavailable(
            f"{slots} slots of {cells} cells need {slots * slot_bytes // _MIB} MiB of memory and "
            f"{available // _MIB} MiB are available: set a smaller model_params.n_ctx or worker.slots"
        )
    logger.info(
        "%d slots of %d cells: %d MiB of %d MiB available", slots, cells, slots * slot_bytes // _MIB, available // _MIB
    )
    return slots
