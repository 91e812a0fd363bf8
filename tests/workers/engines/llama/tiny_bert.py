"""A tiny BERT as a GGUF file, with random weights: a model that reads a text as a whole and generates nothing."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

WIDTH, HIDDEN, HEADS, CONTEXT = 32, 64, 2, 64
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# WordPiece as GGUF files have it: the mark of a beginning, not of a continuation
_TOKENS = [*_SPECIAL, *(f"\u2581{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), *"abcdefghijklmnopqrstuvwxyz"]


def write_bert(path: Path, pooling: PoolingType = PoolingType.CLS, *, epsilon: float = 1e-12) -> Path:
    writer = GGUFWriter(path, "bert")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(epsilon)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(_TOKENS)
    writer.add_token_types([TokenType.CONTROL] * len(_SPECIAL) + [TokenType.NORMAL] * (len(_TOKENS) - len(_SPECIAL)))
    writer.add_token_type_count(2)
    for name, token in [("padding", 0), ("unknown", 1), ("cls", 2), ("seperator", 3), ("mask", 4)]:
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    writer.add_uint32("tokenizer.ggml.bos_token_id", 2)
    for name, shape in _shapes().items():
        rng = np.random.default_rng(len(name))
        weights = np.ones(shape) if "norm.weight" in name else rng.normal(0, 0.2, shape)
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(_TOKENS), WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_types.weight": (2, WIDTH),
    }
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        shapes |= {f"blk.0.{name}.weight": (WIDTH, WIDTH), f"blk.0.{name}.bias": (WIDTH,)}
    shapes |= {"blk.0.ffn_up.weight": (HIDDEN, WIDTH), "blk.0.ffn_up.bias": (HIDDEN,)}
    return shapes | {"blk.0.ffn_down.weight": (WIDTH, HIDDEN), "blk.0.ffn_down.bias": (WIDTH,)}
