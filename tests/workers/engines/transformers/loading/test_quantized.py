"""Folders that transformers knows as quantized: what serves without a further package, and the line about one that is
missing.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from app.config.settings import Config, WorkerConfig
from app.errors import ModelUnavailable
from tests.workers.engines.transformers.driver import THREADS, complete, request
from tests.workers.engines.transformers.models import tiny
from workers.engines.transformers.engine import HuggingfaceEngine

PROMPT = [7, 19, 42, 3, 99]
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
_GROUP = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}}
COMPRESSED_TENSORS = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "quantization_status": "compressed",
    "config_groups": {"group_0": _GROUP},
    "ignore": ["lm_head"],
}


def quantized_folder(target: Path, quantization: dict[str, Any], scale_name: str) -> tuple[Path, dict[str, Tensor]]:
    """The tiny Llama model in float8, one scale for a matrix, and the weights that it stands for."""
    shutil.copytree(tiny("llama"), target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for key, value in load_file(target / "model.safetensors").items():
        if key.endswith("_proj.weight"):
            scale = value.abs().max().float() / torch.finfo(torch.float8_e4m3fn).max
            tensors[key] = (value / scale).to(torch.float8_e4m3fn)
            tensors[f"{key}{scale_name}"] = scale.reshape(1, 1)
            plain[key] = tensors[key].float() * scale
        else:
            tensors[key] = plain[key] = value
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target, plain


def engine_of(folder: Path) -> HuggingfaceEngine:
    config = Config(
        model_name="m",
        model_family="huggingface",
        setup_params={"path": str(folder)},
        model_params={"dtype": "torch.float32", "n_threads": THREADS, "n_ctx": 64, "device_map": "cpu"},
        worker=WorkerConfig(slots=2),
    )
    return HuggingfaceEngine(config, lambda *_: None)


@torch.inference_mode()
def test_float8_in_blocks_has_the_logits_of_its_weights(tmp_path: Path) -> None:
    folder, weights = quantized_folder(tmp_path / "model", FP8, "_scale_inv")
    engine = engine_of(folder)
    plain = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    plain.load_state_dict(weights, strict=False)
    ids = torch.tensor([PROMPT])
    logits, expected = (model.eval()(input_ids=ids).logits[0] for model in (engine._loaded.model, plain))
    assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))
    assert complete(engine, request("abc", max_tokens=4))[0].tokens


def test_compressed_tensors_name_the_package_to_install(tmp_path: Path) -> None:
    folder, _ = quantized_folder(tmp_path / "model", COMPRESSED_TENSORS, "_scale")
    with pytest.raises(ModelUnavailable, match=r"pip install .*compressed-tensors") as caught:
        engine_of(folder)
    assert "\n" not in caught.value.detail
