"""From the files of a model quantized with GPTQ or AWQ to a model of transformers with quantized layers."""

import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from app.errors import ModelUnavailable
from workers.engines.gptq.awq import in_gptq_layout, is_awq
from workers.engines.gptq.layers import use_cpu_kernels
from workers.engines.gptq.params import GptqParams
from workers.engines.gptq.quantization import Quantization, reconcile
from workers.engines.gptq.quantization_claims import V2, QuantizationClaim, quantization_claims
from workers.engines.gptq.source import GptqSource
from workers.engines.gptq.tensors import read
from workers.engines.registry import INSTALL
from workers.engines.transformers.loading.model import LoadedModel, load_config, load_tokenizer, loading
from workers.engines.transformers.loading.params import ModelKind, TransformersModelParams, TransformersSetupParams
from workers.models.progress import ReportProgress

_PACKAGES = ("gptqmodel", "optimum", "accelerate")
_COMPUTED = ".rotary_emb.inv_freq"  # of old files; transformers computes it

logger = logging.getLogger(__name__)


def load(
    source: GptqSource,
    setup: TransformersSetupParams,
    gptq: GptqParams,
    params: TransformersModelParams,
    report: ReportProgress,
) -> LoadedModel:
    """Raises ModelUnavailable or ConfigError."""
    with loading(source.model, setup, params, report) as trust:
        _check_packages()
        device_map = gptq.device_map
        config = load_config(source.model, setup, trust)
        claims = quantization_claims(gptq, source.model.folder, config)
        vars(config).pop("quantization_config", None)  # of the files; that of the tensors replaces it
        model_class, linear_shapes = _skeleton(config, trust)
        tokenizer = load_tokenizer(source.model, params, trust)
        tensors = read(source.weights)
        if is_awq(tensors):
            tensors = in_gptq_layout(tensors)
            claims.insert(0, QuantizationClaim(where="the layout of AWQ", format=V2))
        quantization = reconcile(tensors, claims, linear_shapes)
        logger.info("%s: %s", source.model.label, _described(quantization))
        config.quantization_config = quantization.as_config(_backend(gptq, device_map))
        options = {**params.for_model, "device_map": device_map}
        model = _model(model_class, config, tensors, source.model.label, options)
    return LoadedModel(model=model, tokenizer=tokenizer, kind=ModelKind.CAUSAL, source=source.model)


def _check_packages() -> None:
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise ModelUnavailable(f"the family gptq_llama needs {package}: run {INSTALL['gptq_llama']}")


def _backend(gptq: GptqParams, device_map: Any) -> str:
    """On a CPU the plainest of gptqmodel's layers: they hold the tensors until ours replace them."""
    return "torch" if device_map in ("cpu", {"": "cpu"}) else gptq.backend


def _skeleton(config: Any, trust: bool) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Return the model's class, and inputs and outputs of its linear modules by name."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.weight.shape[0], module.weight.shape[1])
    return type(model), shapes


def _model(model_class: Any, config: Any, tensors: dict[str, Tensor], label: str, options: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # optimum looks at every attribute, deprecated ones too
        model, info = model_class.from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True, **options
        )
    _check_keys(label, info, tensors)
    use_cpu_kernels(model, model.dtype)
    return model.eval().requires_grad_(False)


def _check_keys(label: str, info: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise where tensors are missing; log those that the model has no place for. Biases of zeros are no reason: files
    of GPTQ-for-LLaMa hold them for layers that have none.
    """
    outside = [name.removesuffix(".qweight") for name in info["unexpected_keys"] if name.endswith(".qweight")]
    if outside:
        raise ModelUnavailable(
            f"{label}: {outside[0]} is quantized, and only layers inside the model's blocks can be loaded so: "
            "get another file"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelUnavailable(f"{label} has no {missing[0]} ({len(missing)} in all): get the model anew")
    unknown = sorted(
        name
        for name in info["unexpected_keys"]
        if not (name.endswith(".bias") and not tensors[name].any()) and not name.endswith(_COMPUTED)
    )
    if unknown:
        logger.warning("%s: %s (%d in all) are not part of the model and are not used", label, unknown[0], len(unknown))


def _described(quantization: Quantization) -> str:
    groups = "one group per column" if quantization.group_size == -1 else f"groups of {quantization.group_size}"
    order = "act-order" if quantization.desc_act else "plain order"
    symmetry = "symmetric" if quantization.sym else "asymmetric"
    return f"{len(quantization.layers)} layers of {quantization.bits} bits, {groups}, {order}, {symmetry}"
