"""Writes a model of an old format as a GGUF file, with as little of it in memory as a block of rows.

The names and numbers are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter

from app.errors import ModelUnavailable
from workers.models.ggml.blocks import ScaleOutOfRange
from workers.models.ggml.formats import FETCH_ANOTHER
from workers.models.ggml.options import ConversionOptions
from workers.models.ggml.reader import ALIGNMENT, OldModel, OldTensor
from workers.models.ggml.vocabulary import BEGIN, END, UNKNOWN, NewVocabulary, new_vocabulary

logging.getLogger("gguf").setLevel(logging.WARNING)  # a line for each step

_CHUNK_BYTES = 16 * 1024 * 1024
_LLAMA_CONTEXT, _GROUPED_CONTEXT = 2048, 4096  # LLaMA's, and that of the only old models with grouped queries
_EPSILON, _GROUPED_EPSILON = 5e-6, 1e-5

_NAMES = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention_norm": "attn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "ffn_norm": "ffn_norm",
}


def write_gguf(
    model: OldModel, options: ConversionOptions, name: str, target: Path, progress: Callable[[float], None]
) -> None:
    """Write the model to `target`, and to the disk.

    name: of the model. progress: called with the share of the weights that are written.

    Raises:
        ModelUnavailable: the old file cannot be read, or is damaged.
        OSError: the target cannot be written.
    """
    _write_header(model, options, name, target)
    total_bytes = max(1, sum(tensor.new_bytes for tensor in model.tensors.values()))
    written_bytes = 0
    with target.open("ab") as output:
        _pad(output)
        with _opened(model.path) as source:
            for tensor in model.tensors.values():
                for chunk in _converted(model, tensor, source):
                    written_bytes += output.write(chunk)
                    progress(written_bytes / total_bytes)
                _pad(output)
        output.flush()
        os.fsync(output.fileno())


def _write_header(model: OldModel, options: ConversionOptions, name: str, target: Path) -> None:
    is_grouped = model.key_value_heads < model.heads
    writer = GGUFWriter(target, "llama")
    writer.add_name(name)
    writer.add_description(f"converted from a {model.format.label}")
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(model.file_type)
    writer.add_context_length(options.n_ctx or (_GROUPED_CONTEXT if is_grouped else _LLAMA_CONTEXT))
    writer.add_embedding_length(model.width)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.hidden)
    writer.add_rope_dimension_count(model.head_width)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.key_value_heads)
    writer.add_layer_norm_rms_eps(options.eps or (_GROUPED_EPSILON if is_grouped else _EPSILON))
    _add_vocabulary(writer, new_vocabulary(model))
    for tensor in model.tensors.values():
        shape = tuple(reversed(tensor.shape))
        kind = GGMLQuantizationType(tensor.kind)
        writer.add_tensor_info(_new_name(tensor.name), shape, np.dtype(np.float32), tensor.new_bytes, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _add_vocabulary(writer: GGUFWriter, vocabulary: NewVocabulary) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.texts)
    writer.add_token_types(vocabulary.types)
    writer.add_token_scores(vocabulary.scores)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)


def _new_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror or error}") from error


def _converted(model: OldModel, tensor: OldTensor, source: BinaryIO) -> Iterator[bytes]:
    stored = tensor.encoding
    blocks_of_chunk = max(1, _CHUNK_BYTES // stored.old_bytes)
    source.seek(tensor.start)
    for first in range(0, tensor.blocks, blocks_of_chunk):
        size = min(blocks_of_chunk, tensor.blocks - first) * stored.old_bytes
        data = _read(source, size, model.path)
        if stored.convert is None:
            yield data
            continue
        try:
            yield stored.convert(np.frombuffer(data, np.uint8).reshape(-1, stored.old_bytes)).tobytes()
        except ScaleOutOfRange:
            reason = f"the scales of {tensor.name} are no numbers"
            raise ModelUnavailable(
                f"{model.path} is damaged ({reason}): download it again, or {FETCH_ANOTHER}"
            ) from None


def _read(source: BinaryIO, size: int, path: Path) -> bytes:
    try:
        data = source.read(size)
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) < size:
        raise ModelUnavailable(f"{path} became shorter while it was read: start again when it is whole")
    return data


def _pad(output: BinaryIO) -> None:
    output.write(bytes(-output.tell() % ALIGNMENT))
