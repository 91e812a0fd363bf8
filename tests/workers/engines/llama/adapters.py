"""Writes LoRA adapters of random numbers for SmolLM2-135M, with the `gguf` package."""

from pathlib import Path

import gguf
import numpy as np

WIDTH, HIDDEN, KEYS, LAYERS = 576, 1536, 192, 30  # of SmolLM2-135M
_SHAPES = {  # (outputs, inputs) of what an adapter changes
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KEYS, WIDTH),
    "attn_v": (KEYS, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}


def write_adapter(
    path: Path, scale: float = 1.0, *, seed: int = 0, rank: int = 4, architecture: str = "llama", **texts: str
) -> Path:
    """scale: of its effect. texts: other metadata, with `__` for dots."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in ({"general__type": "adapter", "adapter__type": "lora"} | texts).items():
        writer.add_string(key.replace("__", "."), value)
    writer.add_float32("adapter.lora.alpha", float(rank))
    for layer in range(LAYERS):
        for name, (outputs, inputs) in _SHAPES.items():
            a = rng.normal(0, inputs**-0.5, (rank, inputs)).astype(np.float32)
            b = rng.normal(0, 0.1 * scale, (outputs, rank)).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", a)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
