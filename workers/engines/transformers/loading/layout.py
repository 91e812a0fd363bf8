"""What a model keeps of the tokens it has read: whether slots can keep it, and how many slots of how many cells."""

import logging
import sys
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from app.errors import ConfigError
from workers.engines.base import Limits
from workers.engines.shared.cache_size import cells_per_slot, choose_slots
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.loading.params import TransformersModelParams

_TRAINED = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "context_length")
_POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
_UNBOUNDED = 2048  # of models that keep a state and were given no length
_FULL, _SLIDING = "full_attention", "sliding_attention"
_PROBE_TOKENS = 2
# Their frequencies follow the longest sequence of a batch, so that rows would not be independent of each other.
_ROPES_OF_THE_BATCH = ("dynamic", "longrope")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """windows: of each kind of layer the tokens it looks back at, itself included (None: all). bytes_per_cell: keys and
    values of one token in all layers.
    """

    layers: int
    windows: dict[str, int | None]
    bytes_per_cell: int


def layout_of(loaded: LoadedModel, cells: int) -> CacheLayout | None:
    """Return the layout. None: the model has no standard cache of keys and values; its requests run one at a time."""
    obstacle = _obstacle(loaded, cells)
    layout = None if obstacle else _probed(loaded)
    if layout is None:
        reason = obstacle or "it keeps no plain keys and values"
        logger.warning("%s cannot be batched (%s): requests run one at a time", type(loaded.model).__name__, reason)
    return layout


def context_tokens(loaded: LoadedModel, params: TransformersModelParams) -> int:
    """Return the cells of one slot.

    Raises:
        ConfigError: `n_ctx` is beyond a table of positions, which cannot be extended.
    """
    trained = trained_tokens(loaded)
    if params.n_ctx and trained and params.n_ctx > trained and _has_position_table(loaded):
        raise ConfigError(f"model_params.n_ctx {params.n_ctx}: this model knows {trained} positions and no more")
    return cells_per_slot(trained or params.n_ctx or _UNBOUNDED, params.n_ctx)


def trained_tokens(loaded: LoadedModel) -> int | None:
    """Return the context that the model was trained with; None where the config has none."""
    lengths = (getattr(loaded.text_config, name, None) for name in _TRAINED)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def embedding_tokens(loaded: LoadedModel) -> int:
    """Return the length of the longest text that an encoder reads."""
    longest = loaded.tokenizer.model_max_length  # beyond `sys.maxsize` where the tokenizer knows none
    trained = trained_tokens(loaded) or _UNBOUNDED
    return min(trained, longest) if 0 < longest < sys.maxsize else trained


def batched_limits(
    loaded: LoadedModel, layout: CacheLayout, cells: int, params: TransformersModelParams, wanted_slots: int | None
) -> Limits:
    """Return the limits of a model over slots.

    Raises:
        ModelUnavailable: what is configured does not fit.
    """
    available = torch.cuda.mem_get_info(loaded.device)[0] if loaded.device.type == "cuda" else None
    slots = choose_slots(cells, cells * layout.bytes_per_cell, wanted_slots, available)
    return Limits(slots=slots, context_tokens=cells, max_batched_tokens=max(params.n_batch, slots))


def _obstacle(loaded: LoadedModel, cells: int) -> str | None:
    model = loaded.model
    # private: transformers has no public names for these two
    if getattr(model, "_is_stateful", False) or not model._supports_default_dynamic_cache():
        return "it keeps a state, not keys and values"
    if loaded.attention not in ("sdpa", "eager"):
        return f"attn_implementation {loaded.attention} takes no mask of our own; sdpa does"
    rope = getattr(loaded.text_config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _ROPES_OF_THE_BATCH:
        trained = rope.get("original_max_position_embeddings") or loaded.text_config.max_position_embeddings
        if cells > trained:
            return f"its rotary frequencies change at {trained} tokens; a smaller model_params.n_ctx avoids that"
    return None


@torch.inference_mode()
def _probed(loaded: LoadedModel) -> CacheLayout | None:
    """Read the layout off what the model puts into a cache of transformers' own."""
    cache = DynamicCache(config=loaded.text_config)
    tokens = torch.zeros((1, _PROBE_TOKENS), dtype=torch.long, device=loaded.device)
    try:
        loaded.model(input_ids=tokens, past_key_values=cache, use_cache=True)
    except Exception:
        logger.debug("the model takes no cache", exc_info=True)
        return None
    if not cache.layers or not all(_is_plain(layer) for layer in cache.layers):
        return None
    kinds = getattr(loaded.text_config, "layer_types", None) or [_kind(layer) for layer in cache.layers]
    windows = {kind: getattr(layer, "sliding_window", None) for kind, layer in zip(kinds, cache.layers, strict=False)}
    if not set(windows) <= {_FULL, _SLIDING}:
        return None
    parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    cell_bytes = sum(part.element_size() * part.shape[1] * part.shape[3] for part in parts)
    return CacheLayout(layers=len(cache.layers), windows=windows, bytes_per_cell=cell_bytes)


def _is_plain(layer: Any) -> bool:
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or not layer.is_initialized:
        return False
    return all(part.ndim == 4 and part.shape[2] == _PROBE_TOKENS for part in (layer.keys, layer.values))


def _kind(layer: Any) -> str:
    return _SLIDING if isinstance(layer, DynamicSlidingWindowLayer) else _FULL


def _has_position_table(loaded: LoadedModel) -> bool:
    modules = loaded.model.named_modules()
    return any(name.endswith(_POSITION_TABLES) and isinstance(m, torch.nn.Embedding) for name, m in modules)
