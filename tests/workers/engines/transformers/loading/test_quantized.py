"""Folders that transformers knows as quantized: what serves without a further package, and the line about one that is
missing.
"""

import json
import shutil
from collections.abc import Callable
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
from workers.engines.transformers.loading.self_check import difference

PROMPT = [7, 19, 42, 3, 99]
GROUP_SIZE = 32
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
_GROUP = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}}
COMPRESSED_TENSORS = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "quantization_status": "compressed",
    "config_groups": {"group_0": _GROUP},
    "ignore": ["lm_head"],
}
_GROUPS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP_SIZE, "symmetric": True}
W4A16 = COMPRESSED_TENSORS | {
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": _GROUPS}},
}

Quantized = tuple[dict[str, Tensor], Tensor]
"""The tensors that a file has in the place of a matrix, by the ends of their names; and the matrix they stand for."""


def float8(weight: Tensor, scale_name: str = "_scale_inv") -> Quantized:
    scale = weight.abs().max().float() / torch.finfo(torch.float8_e4m3fn).max
    quantized = (weight / scale).to(torch.float8_e4m3fn)
    return {"": quantized, scale_name: scale.reshape(1, 1)}, quantized.float() * scale


def float8_of_compressed_tensors(weight: Tensor) -> Quantized:
    tensors, matrix = float8(weight, "_scale")
    return tensors | {"_scale": tensors["_scale"].flatten()}, matrix


def int4_in_groups(weight: Tensor) -> Quantized:
    """Eight numbers of 4 bits in one of 32, the first in the lowest bits; 8 stands for 0."""
    groups = weight.float().unflatten(1, (-1, GROUP_SIZE))
    scales = groups.abs().amax(2) / 7
    numbers = (groups / scales[..., None]).round()
    places = (numbers + 8).to(torch.int64).flatten(1).unflatten(1, (-1, 8))
    packed = (places << torch.arange(0, 32, 4)).sum(2)
    shape = torch.tensor(weight.shape)
    tensors = {"_packed": packed.to(torch.uint32).view(torch.int32), "_scale": scales, "_shape": shape}
    return tensors, (numbers * scales[..., None]).flatten(1)


def quantized_folder(
    target: Path, quantization: dict[str, Any], quantize: Callable[[Tensor], Quantized]
) -> tuple[Path, dict[str, Tensor]]:
    """The tiny Llama model, quantized, and the weights that it stands for."""
    shutil.copytree(tiny("llama"), target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for key, value in load_file(target / "model.safetensors").items():
        if key.endswith("_proj.weight"):
            parts, plain[key] = quantize(value)
            tensors |= {f"{key}{end}": part for end, part in parts.items()}
        else:
            tensors[key] = plain[key] = value
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target, plain


def engine_of(folder: Path, **model_params: Any) -> HuggingfaceEngine:
    config = Config(
        model_name="m",
        model_family="huggingface",
        setup_params={"path": str(folder)},
        model_params={"dtype": "torch.float32", "n_threads": THREADS, "n_ctx": 64, "device_map": "cpu", **model_params},
        worker=WorkerConfig(slots=2),
    )
    return HuggingfaceEngine(config, lambda *_: None)


@torch.inference_mode()
def logits_of(weights: dict[str, Tensor]) -> Tensor:
    """Return the logits of the tiny Llama model with these weights."""
    plain = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    plain.load_state_dict(weights, strict=False)
    logits: Tensor = plain.eval()(input_ids=torch.tensor([PROMPT])).logits[0]
    return logits


FORMATS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Quantized]]] = {
    "float8 in blocks": (FP8, float8),
    "compressed-tensors, float8": (COMPRESSED_TENSORS, float8_of_compressed_tensors),
    "compressed-tensors, w4a16": (W4A16, int4_in_groups),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_quantized_folder_has_the_logits_of_its_weights(tmp_path: Path, name: str) -> None:
    folder, weights = quantized_folder(tmp_path / "model", *FORMATS[name])
    engine, expected = engine_of(folder), logits_of(weights)
    assert difference(engine._loaded.last_logits(PROMPT), expected[-1]) < 1e-4
    assert complete(engine, request("abc", max_tokens=4, ignore_eos=True))[0].tokens


@pytest.mark.parametrize(
    ("bits", "most"), [({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 0.3), ({"load_in_8bit": True}, 0.05)]
)
def test_bitsandbytes_quantizes_a_plain_folder_when_it_is_loaded(bits: dict[str, Any], most: float) -> None:
    quantization = {"quant_method": "bitsandbytes", "bnb_4bit_compute_dtype": "float32", **bits}
    engine = engine_of(tiny("llama"), quantization_config=quantization)
    expected = logits_of({})
    assert 1e-4 < difference(engine._loaded.last_logits(PROMPT), expected[-1]) < most
    requests = [request(text, max_tokens=4, ignore_eos=True) for text in ("abc", "another")]
    alone = [complete(engine, one)[0].tokens for one in requests]
    assert [one.tokens for one in complete(engine, *requests)] == alone


def test_compressed_tensors_name_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = quantized_folder(tmp_path / "model", COMPRESSED_TENSORS, float8_of_compressed_tensors)
    quantizer = "transformers.quantizers.quantizer_compressed_tensors"
    monkeypatch.setattr(f"{quantizer}.is_compressed_tensors_available", lambda: False)
    with pytest.raises(ModelUnavailable, match=r"pip install .*compressed-tensors") as caught:
        engine_of(folder)
    assert "\n" not in caught.value.detail
