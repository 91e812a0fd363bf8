"""Every block of docs/from-the-original.md against the real thing: small models stand for the big ones.

One service, started with the page's configuration of llama.cpp, answers the page's requests.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

from app.config.loader import load_config
from app.config.settings import Config
from app.errors import StartupError
from tests.clients import environments
from tests.stack import ROOT, Stack, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled
from tests.workers.engines.gptq.packing import Recipe, tiny_quantized
from tests.workers.engines.gptq.test_awq import tiny_awq
from tests.workers.engines.transformers.models import tiny
from tests.workers.models.ggml.old_files import GGJT_1, Q4_0, write_old_file
from tests.workers.models.ggml.tiny_llama import token_texts
from tests.workers.models.small_hub import Repo, SmallHub, serving
from workers.engines.registry import load_family
from workers.models.source import locate_model

PAGE = ROOT / "docs" / "from-the-original.md"
BLOCKS = dict(re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```', PAGE.read_text(), flags=re.MULTILINE | re.DOTALL))
REPO = "user/repo_id"
FILE = "ggml-model-q4_0.bin"


def block(title: str) -> str:
    text: str = BLOCKS[title]
    return text


def test_every_block_of_the_page_has_a_title_and_a_test() -> None:
    used = re.findall(r'(?:block|config_of|run)\("([^"]+)"', Path(__file__).read_text())
    assert PAGE.read_text().count("```") == 2 * len(BLOCKS) and set(used) == set(BLOCKS)


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [block("run a container"), block("run on GPUs").splitlines()[1]])
def test_a_container_of_ours_takes_the_mounts_and_the_port(command: str) -> None:
    words = shlex.split(command)
    assert words[:2] == ["docker", "run"]
    mounts = [words[at + 1].split(":")[1] for at, word in enumerate(words) if word == "-v"]
    image = (ROOT / "Dockerfile").read_text()
    assert mounts == ["/models", "/llm-api/config.yaml"]
    assert "LLM_API_MODELS_DIR=/models" in image and "WORKDIR /llm-api" in image
    assert words[words.index("-p") + 1] == "8000:8000" and "EXPOSE 8000" in image


def test_the_compose_files_have_the_originals_names_port_and_mounts() -> None:
    assert block("run with compose").split() == ["docker", "compose", "up"]
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    assert services["api"]["ports"] == ["${LLM_API_PORT:-8000}:8000"]
    assert "./models:/models" in services["worker"]["volumes"]
    name = block("run on GPUs").split()[3]
    with_gpus = yaml.safe_load((ROOT / name).read_text())["services"]
    served = {name for name, service in services.items() if "profiles" not in service}
    assert set(with_gpus) == served, "the file stands by itself"
    devices = with_gpus["worker"]["deploy"]["resources"]["reservations"]
    assert devices["devices"][0]["driver"] == "nvidia"


def test_the_look_at_the_gpu_is_a_command_of_docker_alone() -> None:
    assert shlex.split(block("look at the GPU"))[-1] == "nvidia-smi"


def test_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(environ=dict(word.split("=", 1) for word in shlex.split(block("environment"))))
    assert (config.models_dir, config.model_family, config.log.level) == (Path("/models"), "llama", "info")
    assert (config.server.host, config.server.port) == ("0.0.0.0", 8000)
    assert (config.setup_params["filename"], config.model_params) == (FILE, {"n_ctx": 512})


# --- configurations ---------------------------------------------------------------------------------------------------


def config_of(title: str, folder: Path, **changes: str) -> Config:
    """Load a block as the configuration, with texts of it changed, and the folder of models in `folder`."""
    text = block(title).replace("models_dir: /models", f"models_dir: {folder / 'models'}")
    for before, after in changes.items():
        placeholder = {"repository": "<repo_id>", "repo": "<repo id>", "gpu": "cuda:0", "file": "<model file name>"}
        before = placeholder.get(before, "<model.safetensors or model.pt>")
        assert before in text
        text = text.replace(before, after)
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml", {})


def started(config: Config) -> Any:
    """Return the engine of the family with the model loaded."""
    return load_family(config.model_family)(config, lambda *_: None)


def refusal(config: Config) -> str:
    with pytest.raises(StartupError) as caught:
        started(config)
    assert "\n" not in caught.value.detail
    return caught.value.detail


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def old_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / FILE
    word = b"capital"  # as one token: the prompt of the page is short for every model
    write_old_file(path, GGJT_1, Q4_0, texts=token_texts() + [word[:end] for end in range(2, len(word) + 1)])
    return path


@pytest.fixture(scope="module")
def gguf(old_file: Path) -> bytes:
    setup = {"path": str(old_file), "convert": True}
    config = Config(model_name="old", models_dir=old_file.parent / "models", setup_params=setup)
    return locate_model(config, lambda *_: None, single_file=True).read_bytes()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    with serving(SmallHub({})) as small:
        monkeypatch.setenv("HF_ENDPOINT", small.endpoint)
        yield small


def test_placeholders_are_refused_with_what_to_type_instead(tmp_path: Path, hub: SmallHub) -> None:
    assert "params.key is unknown: known are" in refusal(config_of("config: placeholders", tmp_path))
    assert "must look like owner/name" in refusal(config_of("config: huggingface", tmp_path))


def test_a_file_from_before_gguf_needs_one_more_line(tmp_path: Path, hub: SmallHub, old_file: Path) -> None:
    hub.repos[REPO] = Repo(files={FILE: old_file.read_bytes()})
    assert "set setup_params.convert to true to have it converted once" in refusal(config_of("config: llama", tmp_path))


def test_the_configuration_of_the_first_versions_starts(tmp_path: Path, hub: SmallHub, old_file: Path) -> None:
    hub.repos[REPO] = Repo(files={FILE: old_file.read_bytes()})
    config = config_of("config: llama, first versions", tmp_path)
    engine = started(config)
    assert (config.model_family, config.model_name, engine.limits.context_tokens) == ("llama", "7b", 2000)
    engine.close()


def test_the_configuration_of_huggingface_starts_where_its_device_is(tmp_path: Path, hub: SmallHub) -> None:
    hub.repos["mosaicml/mpt"] = Repo(files=files_of(tiny("mpt")))
    if not torch.cuda.is_available():
        line = refusal(config_of("config: huggingface", tmp_path, repository="mosaicml/mpt"))
        assert "model_params.device_map is cuda:0, and torch sees 0 GPUs here: set cpu" in line
    engine = started(config_of("config: huggingface", tmp_path, repository="mosaicml/mpt", gpu="cpu"))
    assert type(engine._loaded.model).__name__ == "MptForCausalLM"
    engine.close()


def test_the_configuration_of_gptq_llama_starts_where_its_device_is(
    tmp_path: Path, hub: SmallHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored at the end: the family sets it
    file, _ = tiny_quantized(tmp_path / "model", Recipe(group_size=128), "model.pt")
    hub.repos[REPO] = Repo(files=files_of(file.parent))
    if not torch.cuda.is_available():
        line = refusal(config_of("config: gptq_llama", tmp_path, name="model.pt"))
        assert "model_params.device is cuda:0, and torch sees 0 GPUs here: set cpu" in line
    engine = started(config_of("config: gptq_llama", tmp_path, name="model.pt", gpu="cpu"))
    assert engine.limits.slots >= 1
    engine.close()


def test_the_configuration_of_autoawq_starts_where_its_device_is(tmp_path: Path, hub: SmallHub) -> None:
    file, _ = tiny_awq(tmp_path / "model", "model.safetensors")
    hub.repos[REPO] = Repo(files=files_of(file.parent))
    if not torch.cuda.is_available():
        line = refusal(config_of("config: autoawq", tmp_path, repo=REPO, file=file.name))
        assert "model_params.device_map is cuda:0, and torch sees 0 GPUs here: set cpu" in line
    engine = started(config_of("config: autoawq", tmp_path, repo=REPO, file=file.name, gpu="cpu"))
    assert engine.limits.slots >= 1
    engine.close()


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, gguf: bytes) -> Iterator[Stack]:
    """The service with the configuration of llama.cpp, as it stands on the page."""
    folder = tmp_path_factory.mktemp("service")
    config = yaml.safe_load(block("config: llama")) | {"models_dir": str(folder / "models")}
    hub = SmallHub({REPO: Repo(files={FILE: gguf})})
    with serving(hub), pytest.MonkeyPatch.context() as patch, running_valkey(folder / "valkey") as valkey:
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        with running_stack(folder, valkey.url, config) as stack:
            yield stack


@pytest.fixture
def http(service: Stack) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def test_the_configuration_of_llama_starts_and_says_what_it_ignores(service: Stack) -> None:
    for key in ("n_parts", "lora_base", "low_vram"):
        assert f"model_params.{key} is ignored, llama.cpp no longer has it" in service.log("worker")


def send(http: httpx.Client, text: str, path: str | None = None) -> httpx.Response:
    """Send a block that begins with the method and the path."""
    first, body = text.split("\n", 1)
    return http.post(path or first.split()[1], content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("path", ["/generate", "/agenerate"])
def test_the_request_works_without_the_dots(http: httpx.Client, path: str) -> None:
    written = block("request: the dots")
    refused = send(http, written, path)
    assert refused.status_code == 400
    assert "line 4 column 9: write parameters instead of the dots, or nothing" in refused.json()["detail"]
    assert send(http, written.replace("...", ""), path).status_code in (200, 202)


def test_a_text_becomes_a_vector(http: httpx.Client) -> None:
    vector = send(http, block("request: embeddings")).json()
    assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-3)


def run(title: str, stack: Stack) -> "subprocess.CompletedProcess[str]":
    """Run a block with curl, as it is but for the address."""
    if shutil.which("curl") is None:
        assert not os.environ.get("CI"), "CI needs curl"
        pytest.skip("curl is not installed")
    command = block(title).replace("localhost:8000", stack.url).replace("curl ", "curl -sS ", 1)
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=scaled(60), check=True)


def test_the_requests_of_every_family_are_answered(service: Stack, http: httpx.Client) -> None:
    ran = [
        run("curl: huggingface", service),
        run("curl: gptq_llama", service),
        run("curl: llama, as JSON", service),
        run("curl: llama, first versions", service),
    ]
    assert [type(json.loads(one.stdout)) for one in ran] == [str] * 4
    assert http.get("/check").json() == "Ok"


def test_the_request_that_is_no_json_is_mended_place_by_place(service: Stack, http: httpx.Client) -> None:
    assert "write one of the two" in json.loads(run("curl: llama", service).stdout)["detail"]
    text = block("curl: llama").partition("--data '")[2].rstrip().removesuffix("'")
    for cure, before, after in (
        ("write one of the two", " or string", ""),
        ("write one of the two", " or integer", ""),
        ("JSON writes true, false and null", "False", "false"),
        (r"a backslash of a text is written \\", r"\Q", r"\\Q"),
        ("close it with", '"frequency_penalty:', '"frequency_penalty":'),
        ("Expecting ',' delimiter", '1.1\n        "top_k"', '1.1,\n        "top_k"'),
        ("remove the last comma", "40,", "40"),
    ):
        assert cure in http.post("/generate", content=text).json()["detail"]
        text = text.replace(before, after)
    assert isinstance(http.post("/generate", content=text).json(), str)


def test_langchain_calls_the_service(service: Stack) -> None:
    if not environments.is_installed("original"):
        assert not os.environ.get("CI"), "CI needs what `make test` installs for the published clients"
        pytest.skip("the published clients are not installed: make test")
    program = block("langchain").replace("http://localhost:8000", service.url)
    *lines, call = program.splitlines()
    command = [str(environments.python("original")), "-I", "-c", "\n".join([*lines, f"print({call})"])]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=True)
    assert isinstance(json.loads(ran.stdout), str), "a JSON string: this client does not decode it"
