"""Tiny models as GGUF files, with random weights: one of each kind of memory that llama.cpp has.

gemma3 keeps keys and values, some of its layers for a window; mamba and rwkv7 keep a state; lfm2 and jamba keep both.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

WIDTH, HIDDEN, HEADS, LAYERS, CONTEXT = 64, 128, 2, 4, 512
HEAD = WIDTH // HEADS
WINDOW = 16  # tokens, of gemma3
STATE, KERNEL, TIME_RANK, INNER = 16, 4, 4, 2 * WIDTH  # of mamba and jamba
SHORT_KERNEL = 3  # of lfm2
RANK = 8  # of rwkv7's small matrices
KEYS_AND_VALUES = (0, 0, 1, 0)  # key-value heads of each layer of lfm2 and jamba; without them the layer has a state
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)

Shapes = dict[str, tuple[int, ...]]


def write_tiny(path: Path, architecture: str, **numbers: int) -> Path:
    """Write a model of an architecture of `ARCHITECTURES`. numbers: other values of its keys, with `__` for dots."""
    writer = GGUFWriter(path, architecture)
    tokens = _add_vocabulary(writer)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_layer_norm_rms_eps(1e-6)
    shapes: Shapes = {"token_embd.weight": (tokens, WIDTH), "output.weight": (tokens, WIDTH)}
    shapes["output_norm.weight"] = (WIDTH,)
    shapes |= ARCHITECTURES[architecture](writer)
    if architecture == "lfm2":
        shapes["token_embd_norm.weight"] = shapes.pop("output_norm.weight")
    rng = np.random.default_rng(7)
    for name, shape in shapes.items():
        writer.add_tensor(name, _weights(name, shape, rng).astype(np.float32))
    for key, number in numbers.items():
        name = f"{architecture}.{key.replace('__', '.')}"
        assert name in writer.kv_data[0], name
        writer.kv_data[0][name].value = number
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: GGUFWriter) -> int:
    """Add a vocabulary of bytes and letters. Returns its size."""
    special = ["<unk>", "<s>", "</s>"]
    raw = [f"<0x{value:02X}>" for value in range(256)]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:?"]
    tokens = [*special, *raw, *letters]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * len(raw) + [TokenType.NORMAL] * len(letters)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def _weights(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    if name.endswith("ssm_a"):
        return -rng.uniform(0.05, 1.0, shape)
    if name.endswith(("norm.weight", "norm_2.weight", "ln.weight", "ssm_d")):
        return np.ones(shape)
    return rng.normal(0, 2.0 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.3, shape)


def _gemma3(writer: GGUFWriter) -> Shapes:
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern([True, True, True, False])
    shapes: Shapes = {}
    for layer in range(LAYERS):
        shapes |= _attention(layer) | _feed_forward(layer)
        for name, size in [("post_attention_norm", WIDTH), ("post_ffw_norm", WIDTH)]:
            shapes[f"blk.{layer}.{name}.weight"] = (size,)
        shapes |= {f"blk.{layer}.{name}.weight": (HEAD,) for name in ("attn_q_norm", "attn_k_norm")}
    return shapes


def _lfm2(writer: GGUFWriter) -> Shapes:
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(list(KEYS_AND_VALUES))
    writer.add_shortconv_l_cache(SHORT_KERNEL)
    shapes: Shapes = {}
    for layer, heads in enumerate(KEYS_AND_VALUES):
        at = f"blk.{layer}"
        shapes |= _feed_forward(layer)
        if heads:
            shapes |= _attention(layer)
            shapes |= {f"{at}.{name}.weight": (HEAD,) for name in ("attn_q_norm", "attn_k_norm")}
        else:
            shapes |= {
                f"{at}.attn_norm.weight": (WIDTH,),
                f"{at}.shortconv.conv.weight": (WIDTH, SHORT_KERNEL),
                f"{at}.shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
                f"{at}.shortconv.out_proj.weight": (WIDTH, WIDTH),
            }
    return shapes


def _jamba(writer: GGUFWriter) -> Shapes:
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(list(KEYS_AND_VALUES))
    _add_state_sizes(writer)
    shapes: Shapes = {}
    for layer, heads in enumerate(KEYS_AND_VALUES):
        shapes |= _feed_forward(layer) | (_attention(layer) if heads else _mamba_layer(layer))
        if not heads:
            for name, size in [("ssm_dt_norm", TIME_RANK), ("ssm_b_norm", STATE), ("ssm_c_norm", STATE)]:
                shapes[f"blk.{layer}.{name}.weight"] = (size,)
    return shapes


def _mamba(writer: GGUFWriter) -> Shapes:
    _add_state_sizes(writer)
    shapes: Shapes = {}
    for layer in range(LAYERS):
        shapes |= _mamba_layer(layer)
    return shapes


def _rwkv7(writer: GGUFWriter) -> Shapes:
    writer.add_head_count(0)
    writer.add_wkv_head_size(WIDTH)  # 64, as all published models have it: ggml's kernel computes no smaller ones
    writer.add_layer_norm_eps(1e-5)
    for add in (
        writer.add_decay_lora_rank,
        writer.add_iclr_lora_rank,
        writer.add_value_residual_mix_lora_rank,
        writer.add_gate_lora_rank,
    ):
        add(RANK)
    writer.add_token_shift_count(2)
    shapes: Shapes = {"output_norm.bias": (WIDTH,)}
    shapes |= {"token_embd_norm.weight": (WIDTH,), "token_embd_norm.bias": (WIDTH,)}
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        for norm in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            shapes |= {f"{at}.{norm}.weight": (WIDTH,), f"{at}.{norm}.bias": (WIDTH,)}
        for kind in "wav":
            shapes[f"{at}.time_mix_{kind}0.weight"] = (WIDTH,)
        for kind in "wavg":
            shapes |= {f"{at}.time_mix_{kind}1.weight": (RANK, WIDTH), f"{at}.time_mix_{kind}2.weight": (WIDTH, RANK)}
        shapes[f"{at}.time_mix_lerp_fused.weight"] = (6, 1, 1, WIDTH)
        shapes |= {f"{at}.time_mix_{name}.weight": (WIDTH,) for name in ("k_k", "k_a", "r_k")}
        for name in ("key", "value", "receptance", "output"):
            shapes[f"{at}.time_mix_{name}.weight"] = (WIDTH, WIDTH)
        shapes[f"{at}.channel_mix_lerp_k.weight"] = (1, 1, WIDTH)
        shapes |= {f"{at}.channel_mix_key.weight": (HIDDEN, WIDTH), f"{at}.channel_mix_value.weight": (WIDTH, HIDDEN)}
    return shapes


ARCHITECTURES: dict[str, Callable[[GGUFWriter], Shapes]] = {
    "gemma3": _gemma3,
    "mamba": _mamba,
    "rwkv7": _rwkv7,
    "lfm2": _lfm2,
    "jamba": _jamba,
}


def _add_state_sizes(writer: GGUFWriter) -> None:
    writer.add_ssm_conv_kernel(KERNEL)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(TIME_RANK)


def _attention(layer: int) -> Shapes:
    at = f"blk.{layer}"
    shapes: Shapes = {f"{at}.attn_norm.weight": (WIDTH,)}
    shapes |= {f"{at}.{name}.weight": (WIDTH, WIDTH) for name in ("attn_q", "attn_output")}
    return shapes | {f"{at}.{name}.weight": (HEAD, WIDTH) for name in ("attn_k", "attn_v")}


def _feed_forward(layer: int) -> Shapes:
    at = f"blk.{layer}"
    shapes: Shapes = {f"{at}.ffn_norm.weight": (WIDTH,), f"{at}.ffn_down.weight": (WIDTH, HIDDEN)}
    return shapes | {f"{at}.{name}.weight": (HIDDEN, WIDTH) for name in ("ffn_gate", "ffn_up")}


def _mamba_layer(layer: int) -> Shapes:
    at = f"blk.{layer}"
    return {
        f"{at}.attn_norm.weight": (WIDTH,),
        f"{at}.ssm_in.weight": (2 * INNER, WIDTH),
        f"{at}.ssm_conv1d.weight": (INNER, KERNEL),
        f"{at}.ssm_conv1d.bias": (INNER,),
        f"{at}.ssm_x.weight": (TIME_RANK + 2 * STATE, INNER),
        f"{at}.ssm_dt.weight": (INNER, TIME_RANK),
        f"{at}.ssm_dt.bias": (INNER,),
        f"{at}.ssm_a": (INNER, STATE),
        f"{at}.ssm_d": (INNER,),
        f"{at}.ssm_out.weight": (WIDTH, INNER),
    }
