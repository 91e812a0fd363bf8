"""A decoder layer of Llama's kind over a ragged batch, in fewer operations than transformers takes for it.

For few rows on a CPU, to call an operation takes as long as the operation. Everything but a ragged batch goes through
the layer as transformers wrote it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workers.engines.transformers.forward.fused_projections import FUSED_GATE_UP, FUSED_QKV, fuse_projections, is_hooked
from workers.engines.transformers.forward.slot_cache import SlotTensors
from workers.engines.transformers.loading.layout import CacheLayout
from workers.engines.transformers.loading.model import LoadedModel

_KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3")  # their layers do the same, but for norms of queries and keys
_ON_CPU = ("cpu", "meta")  # packed weights leave their plain ones without data


class RaggedLayer(nn.Module):
    """Stands in the place of `plain`, whose projections have been fused where they could be."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain = plain
        attention, mlp = plain.self_attn, plain.mlp
        self.layer = attention.layer_idx
        self.is_last = self.layer == attention.config.num_hidden_layers - 1
        self.scaling = attention.scaling
        self.dim = attention.head_dim
        self.key_heads = attention.config.num_key_value_heads
        norms = [plain.input_layernorm, plain.post_attention_layernorm]
        norms += [norm for name in ("q_norm", "k_norm") if (norm := getattr(attention, name, None)) is not None]
        # kept where nn.Module does not look for submodules: each of them is found through `plain` already
        self.norms = [_Norm(norm) for norm in norms]
        qkv = getattr(attention, FUSED_QKV, None) or _Apart(attention.q_proj, attention.k_proj, attention.v_proj)
        gate_up = getattr(mlp, FUSED_GATE_UP, None) or _Apart(mlp.gate_proj, mlp.up_proj)
        self.modules_used = (qkv, attention.o_proj, gate_up, mlp.act_fn, mlp.down_proj)

    def forward(
        self,
        hidden_states: Tensor,
        *args: Any,
        past_key_values: Any = None,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> Any:
        batch = past_key_values.batch if isinstance(past_key_values, SlotTensors) else None
        if batch is None:
            kwargs |= {"past_key_values": past_key_values, "position_embeddings": position_embeddings}
            return self.plain(hidden_states, *args, **kwargs)
        qkv, output, gate_up, activation, down = self.modules_used
        hidden = hidden_states[0]  # `[tokens, size]`
        cache = past_key_values.layers[self.layer]
        states = qkv(self.norms[0](hidden)).unflatten(-1, (-1, self.dim))
        turned, values = states[:, : -self.key_heads], states[:, -self.key_heads :]
        if len(self.norms) > 2:
            query, keys = turned[:, : -self.key_heads], turned[:, -self.key_heads :]
            turned = torch.cat((self.norms[2](query), self.norms[3](keys)), dim=1)
        turned = _rotated(turned, *position_embeddings)
        cache.write(batch, turned[:, -self.key_heads :], values)
        query = turned[:, : -self.key_heads]
        if self.is_last and batch.last is not None:
            query, hidden, batch = query[batch.kept], hidden[batch.kept], batch.last
        seen = batch.attend(query, cache.keys, cache.values, self.scaling)
        hidden = output(seen).add_(hidden)
        gate, up = gate_up(self.norms[1](hidden)).chunk(2, dim=-1)
        return down(activation(gate).mul_(up)).add_(hidden)[None]

    def __getattr__(self, name: str) -> Any:
        """Return the plain layer's attributes, which models read."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("plain"), name)


class _Apart:
    """Layers that could not be fused."""

    def __init__(self, *layers: Any) -> None:
        self._layers = layers

    def __call__(self, states: Tensor) -> Tensor:
        return torch.cat([layer(states) for layer in self._layers], dim=-1)


class _Norm:
    """As LlamaRMSNorm, to the bit, but for the order of the squares' sum. States: `[..., size]`."""

    def __init__(self, plain: Any) -> None:
        self.weight = plain.weight
        self.epsilon = torch.tensor(plain.variance_epsilon, dtype=torch.float32)

    def __call__(self, states: Tensor) -> Tensor:
        wide = states.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = torch.addcmul(self.epsilon, norm, norm, value=1 / states.shape[-1]).rsqrt_()
        return (wide * scale).to(states.dtype).mul_(self.weight)


def _rotated(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """states: `[tokens, heads, dim]`; cosines, sines: `[1, tokens, dim]`. As `apply_rotary_pos_emb` of Llama."""
    cosines, sines = cosines[0, :, None], sines[0, :, None]
    half = states.shape[-1] // 2
    turned = states * cosines
    turned[..., :half].addcmul_(states[..., half:], sines[..., :half], value=-1)
    turned[..., half:].addcmul_(states[..., :half], sines[..., half:])
    return turned


def fuse_for_ragged_layers(loaded: LoadedModel) -> None:
    """Fuse the projections; to be called before weights are packed. Changes nothing in models without such layers."""
    for layer in _layers(loaded):
        fuse_projections(layer)


def use_ragged_layers(loaded: LoadedModel, layout: CacheLayout) -> bool:
    """Replace the decoder layers. Returns whether the model now takes ragged batches."""
    layers = _layers(loaded)
    if not layers or len(layout.windows) != 1 or loaded.attention != "sdpa":
        return False
    loaded.model.model.layers = nn.ModuleList(RaggedLayer(layer) for layer in layers)
    return True


def use_plain_layers(loaded: LoadedModel) -> None:
    """Undo `use_ragged_layers`."""
    loaded.model.model.layers = nn.ModuleList(layer.plain for layer in loaded.model.model.layers)


def _layers(loaded: LoadedModel) -> list[Any]:
    """Return the decoder layers of a model on a CPU, if all of them are of a known kind and without hooks."""
    layers = list(getattr(getattr(loaded.model, "model", None), "layers", []))
    known = {f"transformers.models.{kind.lower()}.modeling_{kind.lower()}.{kind}DecoderLayer" for kind in _KINDS}
    for layer in layers:
        kind = type(layer)
        hooked = any(is_hooked(module) for module in layer.modules())
        on_cpu = all(part.device.type in _ON_CPU for part in (*layer.parameters(), *layer.buffers()))
        if f"{kind.__module__}.{kind.__qualname__}" not in known or hooked or not on_cpu:
            return []
    return layers
