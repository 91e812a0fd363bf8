"""Loads a model and its tokenizer through transformers; every error becomes one line that names the fix."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as library_logging

from app.errors import ConfigError, LLMAPIError, ModelUnavailable
from workers.engines.shared.resources import usable_cpus
from workers.engines.transformers.loading.params import ModelKind, TransformersModelParams, TransformersSetupParams
from workers.engines.transformers.loading.source import WeightsSource
from workers.models.progress import ReportProgress

_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_REASON_CHARACTERS = 400
_SHOWN_KEYS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """model: a `PreTrainedModel`, in evaluation mode. tokenizer: a `PreTrainedTokenizerBase`."""

    model: Any
    tokenizer: Any
    kind: ModelKind
    source: WeightsSource

    @property
    def device(self) -> torch.device:
        """The device of token ids; weights that a device map has moved away (`meta`) are loaded to the first GPU."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        if device.type == "meta":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return device

    @property
    def text_config(self) -> Any:
        """Of the part that reads and writes text, which is all of most models."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def attention(self) -> str:
        """The implementation that runs: `sdpa`, `eager`, ..."""
        return str(self.model.config._attn_implementation)  # private: there is a public setter only

    @torch.inference_mode()
    def last_logits(self, tokens: list[int]) -> Tensor:
        """Return the logits behind the last token, `[vocabulary]`, computed by the model alone, without a cache."""
        ids = torch.tensor([tokens], device=self.device)
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits[0, -1]
        return logits


def load(
    source: WeightsSource, setup: TransformersSetupParams, params: TransformersModelParams, report: ReportProgress
) -> LoadedModel:
    """Raises ModelUnavailable or ConfigError."""
    with loading(source, setup, params, report) as trust:
        if "device_map" in params.for_model and find_spec("accelerate") is None:
            raise ModelUnavailable("model_params.device_map needs accelerate: run `pip install accelerate`")
        check_devices("model_params.device_map", params.for_model.get("device_map"))
        config = load_config(source, setup, trust)
        kind = setup.model_kind or kind_of(config)
        tokenizer = load_tokenizer(source, params, trust)
        model = _model(source, params, config, kind, trust)
    return LoadedModel(model=model, tokenizer=tokenizer, kind=kind, source=source)


def prepare_library(n_threads: int | None) -> None:
    """Set torch's threads; silence transformers, and what it may load, gptqmodel and bitsandbytes: their logs, banners
    and progress bars are for a person at a terminal.
    """
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    if find_spec("logbar") is not None:
        from logbar import LogBar

        LogBar.shared().setLevel("ERROR")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it recommends a package that fetches code from the Hub
    torch.set_num_threads(n_threads or usable_cpus())


def check_devices(key: str, device_map: Any) -> None:
    """Raise ConfigError where a device map, or the one device of `key`, names a GPU that torch does not see."""
    for device in device_map.values() if isinstance(device_map, Mapping) else [device_map]:
        kind, _, index = ("cuda", "", str(device)) if isinstance(device, int) else str(device).partition(":")
        count = torch.cuda.device_count()
        if kind == "cuda" and (index or "0").isdecimal() and int(index or 0) >= count:
            raise ConfigError(f"{key} is {device}, and torch sees {count} GPUs here: set cpu, or leave it out")


def kind_of(config: Any) -> ModelKind:
    """Return what the architecture is made for. Raises ModelUnavailable for models that translate one text."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelUnavailable("this is an encoder-decoder model, which this family cannot run: use another")
    architectures = getattr(config, "architectures", None) or []
    if not architectures or any(name.endswith(_GENERATIVE) for name in architectures):
        return ModelKind.CAUSAL
    return ModelKind.EMBEDDING


def set_config_params(config: Any, values: Mapping[str, Any]) -> None:
    """Set attributes of a `PreTrainedConfig`; mappings are merged into nested configs and mappings, at any depth."""
    for name, value in values.items():
        present = getattr(config, name, None)
        if isinstance(value, Mapping) and hasattr(present, "to_dict"):
            set_config_params(present, value)
        else:
            setattr(config, name, _merged(present, value))


def _merged(present: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = present if isinstance(present, Mapping) else {}
    return dict(kept) | {name: _merged(kept.get(name), inner) for name, inner in value.items()}


def load_config(source: WeightsSource, setup: TransformersSetupParams, trust: bool) -> Any:
    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=trust, **_gguf(source))
    try:
        set_config_params(config, setup.config_params)
    except Exception as error:  # configs check the types of what is set
        raise ConfigError(f"setup_params.config_params: {_reason(error)}") from error
    return config


def load_tokenizer(source: WeightsSource, params: TransformersModelParams, trust: bool) -> Any:
    own = source.tokenizer_folder == source.folder
    options = params.for_tokenizer | (_gguf(source) if own else {})
    return AutoTokenizer.from_pretrained(source.tokenizer_folder, trust_remote_code=trust, **options)


def _model(source: WeightsSource, params: TransformersModelParams, config: Any, kind: ModelKind, trust: bool) -> Any:
    loads_text = kind is ModelKind.CAUSAL or any(n.endswith(_GENERATIVE) for n in config.architectures or [])
    auto_class = AutoModelForCausalLM if loads_text else AutoModel
    model, info = auto_class.from_pretrained(
        source.folder,
        config=config,
        trust_remote_code=trust,
        output_loading_info=True,
        **_gguf(source),
        **params.for_model,
    )
    missing = sorted(info["missing_keys"])
    if missing and kind is ModelKind.CAUSAL:
        shown = ", ".join(missing[:_SHOWN_KEYS])
        logger.warning("%s has no %s (%d in all): these weights are random", source.label, shown, len(missing))
    if "device_map" not in params.for_model and torch.cuda.is_available():
        model = model.to("cuda")
    return model.eval().requires_grad_(False)


def _gguf(source: WeightsSource) -> dict[str, str]:
    return {"gguf_file": source.gguf_file} if source.gguf_file else {}


@contextmanager
def loading(
    source: WeightsSource, setup: TransformersSetupParams, params: TransformersModelParams, report: ReportProgress
) -> Iterator[bool]:
    """Prepare the library, and turn an error of the block into ModelUnavailable or ConfigError.

    Yields whether Python code of the model's is trusted.
    """
    prepare_library(params.n_threads)
    trusts = setup.trust_remote_code or params.trust_remote_code
    if trusts:
        logger.warning("trust_remote_code is on: Python code that comes with %s may run here", source.label)
    report("reading the weights", None)
    try:
        yield trusts
    except LLMAPIError:
        raise
    except ImportError as error:
        fix = f": run `pip install {error.name}`" if error.name else ""
        raise ModelUnavailable(
            f"{source.label} needs a package that is not installed ({_reason(error)}){fix}"
        ) from error
    except torch.OutOfMemoryError as error:
        raise ModelUnavailable(
            f"{source.label} does not fit into the memory of the GPU: quantize it, or set model_params.device_map"
        ) from error
    except Exception as error:
        if not trusts and _has_code(source):
            raise ModelUnavailable(
                f"{source.label} comes with Python code of its own: read it, then set setup_params.trust_remote_code"
            ) from error
        if isinstance(error, TypeError):
            raise ConfigError(
                f"model_params: transformers rejects them for {source.label}: {_reason(error)}"
            ) from error
        raise ModelUnavailable(
            f"{source.label} could not be loaded ({type(error).__name__}: {_reason(error)}): "
            "check the files and setup_params"
        ) from error


def _has_code(source: WeightsSource) -> bool:
    try:
        return "auto_map" in json.loads((source.folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def _reason(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:_REASON_CHARACTERS]
