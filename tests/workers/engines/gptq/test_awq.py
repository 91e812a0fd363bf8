"""Models quantized with AWQ: the tensors as AutoAWQ writes them, and the logits of the weights that they stand for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from app.errors import ConfigError, ModelUnavailable
from tests.workers.engines.gptq.driver import logits, make_engine
from tests.workers.engines.gptq.models import folder_with
from tests.workers.engines.gptq.packing import Recipe, quantize, save
from tests.workers.engines.gptq.test_loading import PROMPT, difference, expected_logits
from tests.workers.engines.transformers.driver import complete, request
from tests.workers.engines.transformers.models import ROOT, tiny
from workers.engines.gptq.layers import Int4Linear
from workers.engines.registry import load_family

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
AS_TRANSFORMERS = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
AS_AUTOAWQ = {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}


def along_outputs(codes: Tensor) -> Tensor:
    """`[rows, N]` codes to `[rows, N / 8]` words, as AutoAWQ's loop packs them."""
    words = torch.zeros((codes.shape[0], codes.shape[1] // 8), dtype=torch.long)
    for nibble, output in enumerate(ORDER):
        words |= codes[:, output::8].long() << 4 * nibble
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpacked(words: Tensor, dim: int) -> Tensor:
    """The codes of GPTQ's packing along a dimension."""
    parts = [(words >> shift) & 15 for shift in range(0, 32, 4)]
    return torch.stack(parts, dim + 1).flatten(dim, dim + 1)


def tiny_awq(
    target: Path, name: str = "model.safetensors", *, symmetric: bool = False
) -> tuple[Path, dict[str, Tensor]]:
    """The tiny Llama model as AWQ has it, and the weights that it stands for."""
    folder_with(target, tiny("llama"))
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for key, value in load_file(tiny("llama") / "model.safetensors").items():
        layer = key.removesuffix(".weight")
        if layer.endswith("_proj"):
            parts, plain[key] = quantize(value, Recipe(symmetric=symmetric, subtracted=0))
            tensors[f"{layer}.qweight"] = along_outputs(unpacked(parts["qweight"], 0))
            tensors[f"{layer}.qzeros"] = along_outputs(unpacked(parts["qzeros"], 1))
            tensors[f"{layer}.scales"] = parts["scales"]
        else:
            tensors[key] = plain[key] = value
    save(tensors, target / name)
    return target / name, plain


def claim(folder: Path, file: str, values: dict[str, Any]) -> None:
    if file == "config.json":
        values = json.loads((folder / file).read_text()) | {"quantization_config": values}
    (folder / file).write_text(json.dumps(values))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("model.safetensors", {}),
        ("model.safetensors", {"config.json": AS_TRANSFORMERS}),
        ("awq_model_w4_g32.pt", {"quant_config.json": AS_AUTOAWQ}),
    ],
)
def test_a_model_of_awq_has_the_logits_of_its_weights(
    tmp_path: Path, name: str, claims: dict[str, dict[str, Any]], symmetric: bool
) -> None:
    file, weights = tiny_awq(tmp_path / "model", name, symmetric=symmetric)
    for where, values in claims.items():
        claim(file.parent, where, values)
    engine = make_engine(file, tmp_path, safetensors=True, fuse_layers=False)
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 1e-4


def test_on_a_cpu_the_codes_stay_4_bits(kernel: str, tmp_path: Path) -> None:
    file, weights = tiny_awq(tmp_path / "model")
    engine = make_engine(file, tmp_path, dtype="torch.bfloat16")
    apart = {"ours": 4, "torch's": 6}  # of 7 in a layer; torch's cannot join layers of 32 outputs
    assert sum(isinstance(module, Int4Linear) for module in engine._loaded.model.modules()) == 2 * apart[kernel]
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 0.05
    assert complete(engine, request("abc", max_tokens=5))[0].tokens


def test_what_awq_claims_is_compared_with_the_tensors(tmp_path: Path) -> None:
    file, _ = tiny_awq(tmp_path / "model")
    claim(file.parent, "config.json", AS_TRANSFORMERS | {"group_size": 64})
    with pytest.raises(ConfigError, match=r"group_size is 64, and the weights are in groups of 32"):
        make_engine(file, tmp_path)
    claim(file.parent, "config.json", AS_TRANSFORMERS | {"version": "gemv"})
    with pytest.raises(ConfigError, match=r"has AWQ's layout gemv, which cannot be loaded: get the model as gemm"):
        make_engine(file, tmp_path)


def test_the_family_of_the_original_is_one_of_ours(tmp_path: Path) -> None:
    file, _ = tiny_awq(tmp_path / "model")
    assert type(make_engine(file, tmp_path)) is load_family("autoawq")
    with pytest.raises((ConfigError, ModelUnavailable), match=r"model_params.device_map is cuda:99, and torch sees"):
        make_engine(file, tmp_path, device=None, device_map="cuda:99")


PROGRAM = """
import sys
from pathlib import Path
from app.config.settings import Config, WorkerConfig
from workers.engines.registry import load_family
setup = {"path": sys.argv[1]}
config = Config(model_name="m", model_family="huggingface", setup_params=setup, worker=WorkerConfig(slots=1))
engine = load_family("huggingface")(config, lambda *_: None)
print(sum("Awq" in type(module).__name__ for module in engine._loaded.model.modules()))
engine.close()
"""


def test_transformers_loads_it_too_and_nothing_is_drawn_on_the_terminal(tmp_path: Path) -> None:
    file, _ = tiny_awq(tmp_path / "model")
    claim(file.parent, "config.json", AS_TRANSFORMERS)
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(file.parent)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "14"), ran.stderr
