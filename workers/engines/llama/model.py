"""A loaded GGUF file."""

import ctypes
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp

from app.errors import ConfigError, ModelUnavailable
from workers.engines.llama.adapters import LlamaAdapters
from workers.engines.llama.library import free_gpu_bytes, library_log, row_bytes
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.llama.weight_layout import is_rearranged
from workers.models.progress import ReportProgress

logger = logging.getLogger(__name__)

_MAGIC = b"GGUF"
_RWKV_7, _WKV_STEP = ("rwkv7", "arwkv7"), 64
_METADATA_BYTES = 256  # enough for most values; a chat template takes a second call


class Model:
    """A loaded model. weights: without them it computes nothing, and takes next to no time and memory.

    Raises:
        ModelUnavailable: the file is missing, no GGUF, cut short, or of a kind that cannot run here.
    """

    def __init__(self, path: Path, params: LlamaModelParams, report: ReportProgress, *, weights: bool = True) -> None:
        _check_file(path)
        self.path = path
        self._params = params
        self._library_log = library_log()
        self._library_log.verbose = params.verbose
        self.pointer = self._load(_settings(path, params) if weights else _settings_without_weights(), report)
        self.vocabulary = LlamaVocabulary(self.pointer, path)
        self.trained_tokens: int = llama_cpp.llama_model_n_ctx_train(self.pointer)
        self.architecture = self.metadata("general.architecture") or ""
        self.adapters = LlamaAdapters(self.pointer)
        self._reject_encoder_decoder()
        self._reject_impossible_numbers()
        self._reject_odd_states()

    def metadata(self, key: str) -> str | None:
        """Return a value of the header."""
        size = _METADATA_BYTES
        buffer = ctypes.create_string_buffer(size)
        length = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size)
        if length >= size:
            size = length + 1
            buffer = ctypes.create_string_buffer(size)
            llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size)
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    @property
    def is_causal(self) -> bool:
        """Does it generate? Models of the BERT kind read a text as a whole and generate nothing."""
        return self.metadata(f"{self.architecture}.attention.causal") != "false"

    def check_cache_types(self) -> None:
        """Raises ConfigError: a head's keys or values do not fill the blocks of the type configured for them."""
        for key, cache_type, kind in (
            ("type_k", self._params.type_k, "key"),
            ("type_v", self._params.type_v, "value"),
        ):
            values = self._head_size(kind)
            if row_bytes(cache_type, values) is None:
                name, fault = cache_type.name.lower(), f"does not fit this model's heads of {values} values: use f16"
                raise ConfigError(f"model_params.{key} {name} {fault}")

    @property
    def gpu_share(self) -> float:
        """The share of the model, and of the cache with it, that lies on GPUs: layers are put there whole."""
        wanted = self._params.n_gpu_layers
        layers = max(1, llama_cpp.llama_model_n_layer(self.pointer))
        if not llama_cpp.llama_supports_gpu_offload() or not free_gpu_bytes():
            return 0.0
        return 1.0 if wanted is None or wanted < 0 else min(1.0, wanted / layers)

    @property
    def mapped_bytes(self) -> int:
        """Bytes of its file in memory: the system counts them as available, and the model needs them."""
        is_mapped = self._params.use_mmap and not self._params.use_mlock
        return int(llama_cpp.llama_model_size(self.pointer) * (1 - self.gpu_share)) if is_mapped else 0

    def new_context(self, context_params: Any) -> int | None:
        """Make a llama.cpp context. Returns None where that fails; `library_log` has why."""
        self._library_log.clear()
        with self.adapters.new_context():
            context: int | None = llama_cpp.llama_init_from_model(self.pointer, context_params)
        return context

    def close(self) -> None:
        """Free the model and, with it, its adapters."""
        if self.pointer is not None:
            self.adapters.close()
            llama_cpp.llama_model_free(self.pointer)
            self.pointer = None

    def _load(self, settings: Any, report: ReportProgress) -> Any:
        def progress(done: float, _user_data: Any) -> bool:
            report("reading the weights", done)
            return True  # continue

        settings.progress_callback = llama_cpp.llama_progress_callback(progress)  # kept alive by `settings`
        self._library_log.clear()
        pointer = llama_cpp.llama_model_load_from_file(str(self.path).encode(), settings)
        if pointer is None:
            reason = self._library_log.last_errors()
            raise ModelUnavailable(f"{self.path} could not be loaded ({reason}): download it again or check its format")
        return pointer

    def _head_size(self, kind: str) -> int:
        size = self.metadata(f"{self.architecture}.attention.{kind}_length")
        heads = llama_cpp.llama_model_n_head(self.pointer)
        return int(size) if size else int(llama_cpp.llama_model_n_embd(self.pointer) // max(1, heads))

    def _reject_encoder_decoder(self) -> None:
        encodes = llama_cpp.llama_model_has_encoder(self.pointer)
        if encodes and llama_cpp.llama_model_has_decoder(self.pointer):
            self.close()
            raise ModelUnavailable(
                f"{self.path} is an encoder-decoder model, which this family cannot run: use another"
            )

    def _reject_impossible_numbers(self) -> None:
        """ggml ends the process over an epsilon below 0 or a number that is none, but only when it computes."""
        for key in self._keys():
            value = _number(self.metadata(key)) if key.startswith(f"{self.architecture}.") else 0.0
            if not math.isfinite(value) or (value < 0 and key.endswith("epsilon")):
                self.close()
                raise ModelUnavailable(f"{self.path} cannot be used: its {key} is {value}; download it again")

    def _reject_odd_states(self) -> None:
        """ggml computes the heads of RWKV 7 in steps of up to 64 values, and writes beyond one that is no multiple."""
        key = f"{self.architecture}.wkv.head_size"
        size = self.metadata(key) or ""
        if self.architecture in _RWKV_7 and size.isdecimal() and int(size) % _WKV_STEP:
            self.close()
            fault = f"llama.cpp computes heads of {_WKV_STEP} values only, and its {key} is {size}"
            raise ModelUnavailable(f"{self.path} cannot be used: {fault}; use another model")

    def _keys(self) -> Iterator[str]:
        buffer = ctypes.create_string_buffer(_METADATA_BYTES)
        for index in range(llama_cpp.llama_model_meta_count(self.pointer)):
            llama_cpp.llama_model_meta_key_by_index(self.pointer, index, buffer, _METADATA_BYTES)
            yield buffer.value.decode("utf-8", "replace")


def gguf_file(path: Path) -> Path:
    """Return the file itself; of a folder, its only GGUF file (the first part of a split one)."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.gguf"))
    first_parts = [file for file in files if "-00001-of-" in file.name]
    match first_parts or files:
        case [only]:
            return only
        case []:
            raise ModelUnavailable(f"{path} holds no .gguf file: name one in setup_params")
        case _:
            raise ModelUnavailable(f"{path} holds several .gguf files: name one in setup_params")


def _number(text: str | None) -> float:
    """Return a value of the metadata as a number; 0 where it is none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    if magic != _MAGIC:
        raise ModelUnavailable(f"{path} is no GGUF file: give a .gguf file")


def _settings(path: Path, params: LlamaModelParams) -> Any:
    settings = llama_cpp.llama_model_default_params()
    settings.use_extra_bufts = is_rearranged(path) if params.repack is None else params.repack
    settings.load_mode = _load_mode(params)
    if params.n_gpu_layers is not None:
        settings.n_gpu_layers = params.n_gpu_layers
    if params.tensor_split:
        devices = llama_cpp.llama_max_devices()
        # The structure keeps the array alive until the model is loaded; missing shares are 0.
        settings.tensor_split = (ctypes.c_float * devices)(*params.tensor_split[:devices])
    return settings


def _settings_without_weights() -> Any:
    settings = llama_cpp.llama_model_default_params()
    settings.no_alloc, settings.n_gpu_layers = True, 0
    settings.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE  # mapping a file would read it ahead
    return settings


def _load_mode(params: LlamaModelParams) -> int:
    modes = {
        (False, False): llama_cpp.LLAMA_LOAD_MODE_NONE,
        (True, False): llama_cpp.LLAMA_LOAD_MODE_MMAP,
        (False, True): llama_cpp.LLAMA_LOAD_MODE_MLOCK,
        (True, True): llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK,
    }
    return int(modes[params.use_mmap, params.use_mlock])
