"""The model files that are measured: any GGUF file, or a set that is made from the default model."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from tests.stack import SMOLLM2_FILE
from workers.engines.llama.library import library_log
from workers.engines.llama.model import Model as LoadedModel
from workers.engines.llama.model_params import LlamaModelParams

TYPES = ("Q4_0", "Q8_0", "Q4_K_M", "Q6_K")
RANDOM_TYPE = "Q4_K_M"


@dataclass(frozen=True, slots=True)
class Model:
    """is_smollm2: also when it was quantized again."""

    path: Path
    has_template: bool
    is_smollm2: bool

    @classmethod
    def read(cls, path: Path) -> "Model":
        """Read the metadata. Raises ModelUnavailable when llama.cpp cannot load the file."""
        model = LoadedModel(path, LlamaModelParams(), lambda *_: None, weights=False)
        try:
            return cls(
                path,
                has_template=bool(model.metadata("tokenizer.chat_template")),
                is_smollm2=model.metadata("general.basename") == "smollm2",
            )
        finally:
            model.close()


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a model as Llama has it."""

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int

    def tensors(self, tokens: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor, by name. The output has weights of its own: a random model whose output is
        its embedding would repeat its last token.
        """
        kv_width = self.width // self.heads * self.kv_heads
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (tokens, self.width),
            "output.weight": (tokens, self.width),
            "output_norm.weight": (self.width,),
        }
        for layer in range(self.layers):
            shapes |= {
                f"blk.{layer}.{name}.weight": shape
                for name, shape in {
                    "attn_norm": (self.width,),
                    "attn_q": (self.width, self.width),
                    "attn_k": (kv_width, self.width),
                    "attn_v": (kv_width, self.width),
                    "attn_output": (self.width, self.width),
                    "ffn_norm": (self.width,),
                    "ffn_gate": (self.hidden, self.width),
                    "ffn_up": (self.hidden, self.width),
                    "ffn_down": (self.width, self.hidden),
                }.items()
            }
        return shapes


RANDOM_1B = Shape(layers=22, width=2048, hidden=5632, heads=32, kv_heads=4)
_CONTEXT = 8192
_DEVIATION = 0.02  # of weights
_SEED = 1
_ROWS_AT_ONCE = 1024


def model_set(folder: Path) -> list[Path]:
    """Make what is missing of the set in a folder, and return its files: the default model in `TYPES`, a random one."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for ftype in TYPES:
        files.append(folder / f"{SMOLLM2_FILE.name.split('.')[0]}.{ftype}.gguf")
        if not files[-1].exists():
            print(f"making {files[-1]}")
            quantize(SMOLLM2_FILE, files[-1], ftype)
    files.append(folder / f"random-1.2B.{RANDOM_TYPE}.gguf")
    if not files[-1].exists():
        print(f"making {files[-1]}: this takes minutes and, for a while, 3 GB more")
        unquantized = folder / "random-1.2B.F16.gguf"
        write_random(unquantized, RANDOM_1B)
        quantize(unquantized, files[-1], RANDOM_TYPE)
        unquantized.unlink()
    return files


def quantize(source: Path, target: Path, ftype: str) -> None:
    """Write the model in another type with llama.cpp's quantizer. Raises OSError with its reason."""
    log = library_log()
    log.clear()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{ftype}")
    params.allow_requantize = True
    params.nthread = len(os.sched_getaffinity(0))
    with _written_as_a_whole(target) as part:
        if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(part), ctypes.byref(params)):
            raise OSError(f"{source} cannot be written as {ftype} to {target}: {log.last_errors()}")


def write_random(target: Path, shape: Shape) -> None:
    """Write a Llama of random weights in 16 bits, always the same, with the default model's vocabulary and template.

    Tensor by tensor: memory holds one.
    """
    with _written_as_a_whole(target) as part, contextlib.closing(GGUFWriter(part, "llama")) as writer:
        writer.add_name(target.name)
        writer.add_block_count(shape.layers)
        writer.add_context_length(_CONTEXT)
        writer.add_embedding_length(shape.width)
        writer.add_feed_forward_length(shape.hidden)
        writer.add_head_count(shape.heads)
        writer.add_head_count_kv(shape.kv_heads)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(shape.width // shape.heads)
        tensors = shape.tensors(_copy_tokenizer(writer))
        for name, size in tensors.items():
            dtype = _dtype(size)
            writer.add_tensor_info(name, size, dtype, int(np.prod(size)) * dtype.itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for index, size in enumerate(tensors.values()):
            writer.write_tensor_data(_weights(size, np.random.default_rng([_SEED, index])))


def _copy_tokenizer(writer: GGUFWriter) -> int:
    """Copy what the default model says of its tokens and chats. Returns the number of tokens."""
    fields = GGUFReader(SMOLLM2_FILE).fields
    for name, field in fields.items():
        if name.startswith("tokenizer."):
            kind, *of = field.types
            writer.add_key_value(name, field.contents(), kind, of[-1] if kind is GGUFValueType.ARRAY else None)
    return len(fields["tokenizer.ggml.tokens"].data)


def _dtype(size: tuple[int, ...]) -> "np.dtype[np.float16] | np.dtype[np.float32]":
    """llama.cpp wants norms in 32 bits."""
    return np.dtype(np.float32) if len(size) == 1 else np.dtype(np.float16)


def _weights(size: tuple[int, ...], rng: np.random.Generator) -> "np.ndarray[tuple[int, ...], np.dtype[np.floating]]":
    """Return ones for a norm, else normally distributed weights."""
    weights = np.ones(size, _dtype(size))
    if len(size) == 2:
        for row in range(0, size[0], _ROWS_AT_ONCE):
            part = weights[row : row + _ROWS_AT_ONCE]
            part[:] = rng.standard_normal(part.shape, np.float32) * _DEVIATION
    return weights


@contextlib.contextmanager
def _written_as_a_whole(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`, which becomes `target` unless the block raises."""
    part = target.with_name(f"{target.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
