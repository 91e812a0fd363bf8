"""From files of many kinds to a model with the logits of its weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.errors import ConfigError, ModelUnavailable
from tests.workers.engines.gptq.driver import logits, make_engine
from tests.workers.engines.gptq.packing import Recipe, save, tiny_quantized
from tests.workers.engines.transformers.driver import complete, request
from tests.workers.engines.transformers.models import tiny
from tests.workers.models.small_hub import Repo, SmallHub, serving
from workers.engines.gptq import loading
from workers.engines.gptq.layers import Int4Linear

PROMPT = [7, 19, 42, 3, 99, 120, 65, 64]
RECIPES = {
    "v1": Recipe(),
    "v2": Recipe(subtracted=0),
    "act-order": Recipe(ordered=True),
    "asymmetric": Recipe(symmetric=False),
    "asymmetric act-order": Recipe(symmetric=False, ordered=True),
    "one group": Recipe(group_size=-1),
    "groups of 64": Recipe(group_size=64),
    "2 bits": Recipe(bits=2),
    "2 bits asymmetric": Recipe(bits=2, symmetric=False),
    "3 bits": Recipe(bits=3),
    "3 bits asymmetric": Recipe(bits=3, symmetric=False, group_size=64),
    "8 bits": Recipe(bits=8),
    "8 bits act-order": Recipe(bits=8, ordered=True, symmetric=False),
}


@torch.inference_mode()
def expected_logits(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    output: torch.Tensor = model.eval()(input_ids=torch.tensor([PROMPT])).logits[0]
    return output


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def change(file: Path, **changed: Any) -> None:
    """Replace every tensor whose name ends so; None removes it."""
    tensors = load_file(file)
    for part, value in changed.items():
        for name in [name for name in tensors if name.endswith(f".{part}")]:
            if value is None:
                del tensors[name]
            else:
                tensors[name] = value(tensors[name])
    save(tensors, file)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_legacy_file_has_the_logits_of_its_weights(recipe: Recipe, tmp_path: Path) -> None:
    file, weights = tiny_quantized(tmp_path / "model", recipe)
    engine = make_engine(file, tmp_path, wbits=recipe.bits, group_size=recipe.group_size)
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 1e-4


@pytest.mark.parametrize("name", ["v1", "v2", "act-order", "asymmetric", "asymmetric act-order", "groups of 64"])
def test_4_bit_kernels_agree_up_to_rounding(name: str, kernel: str, tmp_path: Path) -> None:
    file, weights = tiny_quantized(tmp_path / "model", RECIPES[name])
    engine = make_engine(file, tmp_path, dtype="torch.bfloat16")
    layers = [module for module in engine._loaded.model.modules() if isinstance(module, Int4Linear)]
    apart = {"ours": 4, "torch's": 6}  # of 7 in a layer; torch's cannot join layers of 32 outputs
    assert len(layers) == 2 * apart[kernel]
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 0.05
    assert complete(engine, request("abc", max_tokens=5))[0].tokens


def test_weights_that_the_4_bit_kernel_cannot_hold_become_plain_weights_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, weights = tiny_quantized(tmp_path / "model", RECIPES["8 bits"])
    engine = make_engine(file, tmp_path, dtype="torch.bfloat16")
    assert "14 of 14 quantized layers are kept as plain bfloat16" in caplog.text
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 0.05


@pytest.mark.parametrize("zeros_only", [True, False], ids=["nothing but zeros", "no g_idx"])
def test_a_file_without_an_order_has_the_plain_one(zeros_only: bool, tmp_path: Path) -> None:
    file, weights = tiny_quantized(tmp_path / "model", Recipe())
    change(file, g_idx=torch.zeros_like if zeros_only else None)
    engine = make_engine(file, tmp_path, wbits=4, group_size=32)
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 1e-4


@pytest.mark.parametrize("where", ["config.json", "quantize_config.json"])
def test_a_modern_folder_describes_its_own_quantization(where: str, tmp_path: Path) -> None:
    file, weights = tiny_quantized(tmp_path / "model", Recipe(ordered=True, subtracted=0, symmetric=False))
    quantize_config: dict[str, Any] = {"bits": 4, "group_size": 32, "desc_act": True, "quant_method": "gptq"}
    quantize_config["checkpoint_format"] = "gptq_v2"
    config = json.loads((file.parent / "config.json").read_text())
    if where == "config.json":
        (file.parent / where).write_text(json.dumps(config | {"quantization_config": quantize_config}))
    else:
        (file.parent / where).write_text(json.dumps(quantize_config))
    engine = make_engine(file.parent, tmp_path)
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 1e-4


def test_zero_biases_and_computed_buffers_of_old_files_are_ignored_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, weights = tiny_quantized(tmp_path / "model", Recipe())
    tensors = load_file(file)
    for name in [name for name in tensors if name.endswith(".qweight")]:
        tensors[name.replace("qweight", "bias")] = torch.zeros(tensors[name].shape[1])
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save(tensors, file)
    assert difference(logits(make_engine(file, tmp_path), PROMPT), expected_logits(weights)) < 1e-4
    assert "are not used" not in caplog.text
    tensors["model.layers.0.mlp.up_proj.bias"] += 1
    save(tensors, file)
    make_engine(file, tmp_path)
    assert "model.layers.0.mlp.up_proj.bias (1 in all) are not part of the model" in caplog.text


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    file, weights = tiny_quantized(tmp_path / "model", Recipe())
    tensors = load_file(file)
    file.unlink()
    names = sorted(tensors)
    placed = {name: f"model-0000{1 + (index % 2)}-of-00002.safetensors" for index, name in enumerate(names)}
    for shard in set(placed.values()):
        save({name: tensors[name] for name in names if placed[name] == shard}, file.parent / shard)
    (file.parent / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    assert difference(logits(make_engine(file.parent, tmp_path), PROMPT), expected_logits(weights)) < 1e-4
    (file.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"has no model-00002-of-00002.safetensors"):
        make_engine(file.parent, tmp_path)


@pytest.mark.parametrize(
    ("params", "quantize_config", "line"),
    [
        ({"wbits": 8}, {}, "model_params: wbits is 8, and the weights have 4 bits"),
        ({"group_size": 128}, {}, "model_params: group_size is 128, and the weights are in groups of 32"),
        ({"group_size": -1}, {}, "group_size is -1, and the weights are in groups of 32"),
        ({"wbits": 4}, {"bits": 8}, "bits is 4 in model_params and 8 in quantize_config.json"),
        ({"group_size": 32}, {"group_size": 64}, "group_size is 32 in model_params and 64 in quantize_config.json"),
        ({}, {"bits": 2}, "quantize_config.json: bits is 2, and the weights have 4 bits"),
        ({}, {"group_size": 64}, "quantize_config.json: group_size is 64, and the weights are in groups of 32"),
        ({}, {"quant_method": "hqq"}, "quantize_config.json has the method hqq"),
        ({}, {"checkpoint_format": "marlin"}, "the format marlin cannot be loaded"),
        ({"wbits": 5}, {}, "model_params.wbits must be one of 2, 3, 4, 8, not 5"),
        ({"group_size": 0}, {}, "model_params.group_size must be an integer of at least 1, or -1"),
        ({"device": "tpu"}, {}, "model_params.device must be cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, {}, "model_params.device is cuda:99, and torch sees"),
        ({"device": "cpu", "device_map": "auto"}, {}, "keep one of them"),
        ({"cuda_visible_devices": [0]}, {}, "model_params.cuda_visible_devices must be devices such as 0 or 0,1"),
        ({"backend": 3}, {}, "model_params.backend must be a kernel"),
    ],
)
def test_a_contradiction_is_reported_in_one_line_with_both_sides(
    params: dict[str, Any], quantize_config: dict[str, Any], line: str, tmp_path: Path
) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    if quantize_config:
        (file.parent / "quantize_config.json").write_text(json.dumps(quantize_config))
    with pytest.raises(ConfigError) as caught:
        make_engine(file, tmp_path, **params)
    assert line in caught.value.detail
    assert "\n" not in caught.value.detail


def test_weights_of_another_model_than_the_config_are_detected_by_their_shapes(tmp_path: Path) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    config = json.loads((file.parent / "config.json").read_text())
    (file.parent / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(ConfigError, match=r"128 inputs and 64 outputs in the weights, 96 and 64 in config.json"):
        make_engine(file, tmp_path)
    (file.parent / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ConfigError, match=r"config.json makes a model without model.layers.1"):
        make_engine(file, tmp_path)


def test_a_missing_order_of_groups_is_refused(tmp_path: Path) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe(ordered=True))
    change(file, g_idx=None)
    (file.parent / "quantize_config.json").write_text(json.dumps({"desc_act": True}))
    with pytest.raises(ConfigError, match=r"desc_act is true, and the weights have no g_idx"):
        make_engine(file, tmp_path)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"scales": None}, "has no scales"),
        ({"qzeros": lambda zeros: zeros[:, :2].contiguous()}, "has 4 bits and|mixed widths|cannot be loaded"),
        ({"scales": lambda scales: scales[:, 1:].contiguous()}, "these do not belong together"),
        ({"g_idx": lambda groups: groups + 7}, "g_idx names"),
        ({"qweight": None, "scales": None, "qzeros": None, "g_idx": None}, "no tensor of the model is quantized"),
    ],
)
def test_damaged_weights_are_reported_in_one_line(changed: dict[str, Any], line: str, tmp_path: Path) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    change(file, **changed)
    with pytest.raises(ModelUnavailable, match=line) as caught:
        make_engine(file, tmp_path)
    assert "\n" not in caught.value.detail


def test_a_quantized_output_head_is_refused_by_its_name() -> None:
    info = {"missing_keys": {"lm_head.weight"}, "unexpected_keys": {"lm_head.qweight", "lm_head.scales"}}
    with pytest.raises(ModelUnavailable, match=r"llama.pt: lm_head is quantized, and only layers inside"):
        loading._check_keys("llama.pt", info, {})


def test_weights_that_are_missing_are_refused(tmp_path: Path) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save(tensors, file)
    with pytest.raises(ModelUnavailable, match=r"has no model.norm.weight \(1 in all\)"):
        make_engine(file, tmp_path)


def test_a_file_of_a_repository_comes_with_its_configuration_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, weights = tiny_quantized(tmp_path / "model", Recipe(), "llama-4bit.pt")
    files = {path.name: path.read_bytes() for path in file.parent.iterdir() if path.is_file()}
    files |= {"other.safetensors": b"not asked for", "quantize_config.json": b'{"bits": 4, "group_size": 32}'}
    setup = {"repo_id": "someone/model", "filename": file.name}
    with serving(SmallHub({"someone/model": Repo(files=files)})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        engine = make_engine(None, tmp_path / "models", setup=setup)
    assert difference(logits(engine, PROMPT), expected_logits(weights)) < 1e-4
    assert not list((tmp_path / "models").rglob("other.safetensors"))
    make_engine(None, tmp_path / "models", setup=setup)  # the hub is gone
    with pytest.raises(ConfigError, match=r"bits is 2 in model_params and 4 in quantize_config.json"):
        make_engine(None, tmp_path / "models", setup=setup, wbits=2)


def test_files_that_cannot_be_chosen_from_or_read_are_named(tmp_path: Path) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    other = file.with_name("other.safetensors")
    other.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"holds 2 files of weights \(model.safetensors, other.safetensors\)"):
        make_engine(file.parent, tmp_path)
    with pytest.raises(ModelUnavailable, match=r"other.safetensors cannot be read"):
        make_engine(other, tmp_path)
    with pytest.raises(ConfigError, match=r"is no file of weights"):
        make_engine(file.parent / "config.json", tmp_path)
    (file.parent / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"there is no config.json beside"):
        make_engine(file, tmp_path)


@pytest.mark.parametrize("package", ["gptqmodel", "optimum"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == package else True)
    with pytest.raises(ModelUnavailable, match=rf"needs {package}: run `make gptq`") as caught:
        make_engine(file, tmp_path)
    assert "\n" not in caught.value.detail


def test_the_gpus_that_torch_may_see_are_set_before_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    file, _ = tiny_quantized(tmp_path / "model", Recipe())
    make_engine(file, tmp_path, cuda_visible_devices=0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
