"""How many slots of how many cells a loaded model gets, and where their memory is."""

import sys

import torch

from app.errors import ConfigError
from workers.engines.base import Limits
from workers.engines.shared.cache_size import cells_per_slot, choose_slots
from workers.engines.transformers.loading.layout import CacheLayout
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.loading.model_params import TransformersModelParams

_TRAINED = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "context_length")
_POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
_UNBOUNDED = 2048  # of models that keep a state and were given no length


def context_tokens(loaded: LoadedModel, params: TransformersModelParams) -> int:
    """Raises ConfigError where `n_ctx` is beyond a table of positions, which nothing can stretch."""
    trained = trained_tokens(loaded)
    if params.n_ctx and trained and params.n_ctx > trained and _has_position_table(loaded):
        raise ConfigError(f"model_params.n_ctx {params.n_ctx}: this model knows {trained} positions and no more")
    return cells_per_slot(trained or params.n_ctx or _UNBOUNDED, params.n_ctx)


def trained_tokens(loaded: LoadedModel) -> int | None:
    """The context the model was trained with; None where it has no such thing."""
    found = (getattr(loaded.text_config, name, None) for name in _TRAINED)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def embedding_tokens(loaded: LoadedModel) -> int:
    """The longest text that an encoder reads."""
    said = loaded.tokenizer.model_max_length
    trained = trained_tokens(loaded) or _UNBOUNDED
    return min(trained, said) if 0 < said < sys.maxsize else trained


def batched_limits(
    loaded: LoadedModel, layout: CacheLayout, cells: int, params: TransformersModelParams, wanted_slots: int | None
) -> Limits:
    """Raises ModelUnavailable where what is configured does not fit."""
    available = torch.cuda.mem_get_info(loaded.device)[0] if loaded.device.type == "cuda" else None
    slots = choose_slots(cells, layout.bytes_per_cell, wanted_slots, available)
    return Limits(slots=slots, context_tokens=cells, max_batched_tokens=max(params.n_batch, slots))


def _has_position_table(loaded: LoadedModel) -> bool:
    modules = loaded.model.named_modules()
    return any(name.endswith(_POSITION_TABLES) and isinstance(m, torch.nn.Embedding) for name, m in modules)
