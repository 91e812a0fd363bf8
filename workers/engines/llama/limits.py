"""How many slots of how many cells a model gets, with its draft model."""

from workers.engines.base import Limits
from workers.engines.llama import checkpoints
from workers.engines.llama.context import MemoryKind
from workers.engines.llama.draft_model import LlamaDraftModel
from workers.engines.llama.library import free_gpu_bytes
from workers.engines.llama.memory_trial import MemoryUse
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.shared.cache_size import cells_per_slot, choose_slots


def choose_limits(
    model: Model, memory: MemoryUse, draft: LlamaDraftModel | None, params: LlamaModelParams, wanted: int | None
) -> Limits:
    cells = cells_per_slot(model.trained_tokens, params.n_ctx)
    slots = _slots_that_fit(model, memory, draft, cells, wanted) if model.is_causal else 1
    rows = max(params.n_batch, slots)  # every running sequence decodes in each step
    return Limits(slots=slots, context_tokens=cells, max_batched_tokens=rows)


def _slots_that_fit(
    model: Model, memory: MemoryUse, draft: LlamaDraftModel | None, cells: int, wanted: int | None
) -> int:
    """Return how many slots fit into the machine's memory, and into the GPUs' where they hold a part of the cache."""
    slot_bytes = cells * memory.cell_bytes + memory.state_bytes
    on_gpus = round(slot_bytes * model.gpu_share)
    kept = checkpoints.PER_SLOT * memory.state_bytes if memory.kind is MemoryKind.STATES else 0
    mapped = model.mapped_bytes
    if draft is not None:
        of_draft = draft.cells(cells) * draft.memory.cell_bytes
        slot_bytes += of_draft
        on_gpus += round(of_draft * draft.model.gpu_share)
        mapped += draft.model.mapped_bytes
    slots = choose_slots(cells, slot_bytes - on_gpus + kept, wanted, reserved=mapped)
    return min(slots, choose_slots(cells, on_gpus, wanted, free_gpu_bytes())) if on_gpus else slots
