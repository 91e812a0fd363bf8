"""`doctor` finds planted faults and names the cure of each; what is well, it calls well."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from app.api.application import create_app
from app.api.request_context import services_of
from app.config.finding import Finding, Level
from app.config.own_command import own_command
from app.config.settings import Config
from app.jobs.redis_client import RedisClient, connect
from app.jobs.version import service_version
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce
from tests.app.cli.command_line import environment, typed
from tests.stack import SMOLLM2_FILE, free_port
from tests.valkey import Valkey, running_valkey

MODEL = "SmolLM2-135M-Instruct.Q4_1"
Examined = Callable[..., list[Finding]]


@pytest.fixture
def examined(tmp_path: Path) -> Examined:
    """Runs `doctor --only` some checks, and returns its findings. Its exit status is that of the worst."""

    def run(*checks: str, **variables: str) -> list[Finding]:
        environ = environment(tmp_path / "data", free_port(), LLM_API_MODELS_DIR=str(tmp_path / "models"))
        words = [word for check in checks for word in ("--only", check)]
        ran = typed("doctor", "--json", *words, environ=environ | variables)
        found = [Finding(**{**one, "level": Level(one["level"])}) for one in json.loads(ran.stdout)]
        assert ran.exit_code == max(finding.level.rank for finding in found)
        return found

    return run


def only(found: list[Finding], level: Level) -> Finding:
    (finding,) = (finding for finding in found if finding.level is level)
    return finding


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def store(own_valkey: Valkey) -> Iterator[RedisClient]:
    """A Redis as the service wants it."""
    client = connect(own_valkey.url)
    defaults = {"maxmemory-policy": "noeviction", "maxmemory": "0", "appendonly": "yes"}
    for name, value in defaults.items():
        client.execute_command("CONFIG SET", name, value)
    client.execute_command("FLUSHALL")
    yield client
    for name, value in defaults.items():
        client.execute_command("CONFIG SET", name, value)
    client.close()


# --- the configuration ------------------------------------------------------------------------------------------------


def test_a_mistyped_key_is_the_only_fault_and_has_its_cure(examined: Examined) -> None:
    found = only(examined("configuration", LLM_API_WORKR__SLOTS="4"), Level.FAULT)
    assert "unknown variable LLM_API_WORKR__SLOTS" in found.text and "did you mean LLM_API_WORKER__SLOTS?" in found.text


def test_what_check_config_rejects_is_a_fault_of_the_configuration_and_reported_once(examined: Examined) -> None:
    found = only(examined("configuration", "model", LLM_API_MODEL_PARAMS='{"n_ctxx": 2048}'), Level.FAULT)
    assert (found.check, found.text) == ("configuration", "model_params.n_ctxx is unknown: did you mean n_ctx?")


def test_a_family_that_is_not_installed_is_named_with_its_command(examined: Examined) -> None:
    found = only(examined("family", LLM_API_MODEL_FAMILY="hugingface"), Level.FAULT)
    assert "did you mean huggingface?" in found.text


# --- Redis ------------------------------------------------------------------------------------------------------------


def test_a_redis_as_it_should_be_is_well(examined: Examined, own_valkey: Valkey, store: RedisClient) -> None:
    (found,) = examined("redis", LLM_API_REDIS_URL=own_valkey.url)
    assert found.level is Level.OK and "keeps its data on disk" in found.text


def test_a_redis_that_does_not_run_is_a_fault_and_its_password_is_not_shown(examined: Examined) -> None:
    found = only(examined("redis", LLM_API_REDIS_URL=f"redis://:hunter2@127.0.0.1:{free_port()}/0"), Level.FAULT)
    assert "does not respond" in found.text and "start Redis, or correct redis_url" in found.cure
    assert "hunter2" not in found.text + found.cure


def test_a_wrong_password_of_redis_is_a_fault(examined: Examined, own_valkey: Valkey, store: RedisClient) -> None:
    url = own_valkey.url.replace("redis://", "redis://nobody:hunter2@")
    found = only(examined("redis", LLM_API_REDIS_URL=url), Level.FAULT)
    assert "rejects the user" in found.text and "correct user and password in redis_url" in found.cure


def test_a_redis_that_deletes_jobs_when_it_is_full_is_a_fault(
    examined: Examined, own_valkey: Valkey, store: RedisClient
) -> None:
    store.execute_command("CONFIG SET", "maxmemory-policy", "allkeys-lru")
    found = only(examined("redis", LLM_API_REDIS_URL=own_valkey.url), Level.FAULT)
    assert "allkeys-lru" in found.text and "set maxmemory-policy noeviction" in found.cure


def test_a_redis_that_is_full_is_a_fault(examined: Examined, own_valkey: Valkey, store: RedisClient) -> None:
    store.execute_command("CONFIG SET", "maxmemory", "1")
    found = only(examined("redis", LLM_API_REDIS_URL=own_valkey.url), Level.FAULT)
    assert "rejects every new job" in found.text and "raise maxmemory" in found.cure


def test_a_redis_that_forgets_at_a_restart_is_a_warning(
    examined: Examined, own_valkey: Valkey, store: RedisClient
) -> None:
    store.execute_command("CONFIG SET", "appendonly", "no")
    found = only(examined("redis", LLM_API_REDIS_URL=own_valkey.url), Level.WARNING)
    assert "a restart loses accepted jobs" in found.text and "appendonly yes" in found.cure


# --- workers ----------------------------------------------------------------------------------------------------------


def worker(**more: Any) -> WorkerInfo:
    values = {"id": "host-1-x", "model": MODEL, "family": "llama", "state": WorkerState.READY} | more
    return WorkerInfo(**{"version": service_version(), **values})


def test_a_worker_of_another_version_is_a_fault(examined: Examined, own_valkey: Valkey, store: RedisClient) -> None:
    announce(store, worker(version="0.1.0+deadbeef"))
    found = only(examined("workers", LLM_API_REDIS_URL=own_valkey.url), Level.FAULT)
    assert "runs 0.1.0+deadbeef, this is " in found.text and "restart API and workers" in found.cure


@pytest.mark.parametrize(
    ("info", "text", "cure"),
    [
        (None, f"no worker serves {MODEL}", f"start one: `{own_command('worker')}`"),
        (worker(model="other"), "workers serve other", "the same configuration"),
        (worker(state=WorkerState.FAILED, detail="there is no file"), "gave up: there is no file", "correct that"),
        (worker(state=WorkerState.STALLED, detail="a step stands"), "stands still: a step stands", "restart it"),
        (worker(has_channel=True), "has no connection to Redis", "its process still runs"),
    ],
)
def test_a_worker_that_is_missing_or_does_not_serve_is_a_fault(
    examined: Examined, own_valkey: Valkey, store: RedisClient, info: WorkerInfo | None, text: str, cure: str
) -> None:
    if info is not None:
        announce(store, info)
    found = only(examined("workers", LLM_API_REDIS_URL=own_valkey.url), Level.FAULT)
    assert text in found.text and cure in found.cure


# --- the API ----------------------------------------------------------------------------------------------------------


def test_a_port_that_another_program_has_is_a_fault_that_names_the_program(examined: Examined, tmp_path: Path) -> None:
    code = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        "while True: s.accept()[0].sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout
            server = json.dumps({"host": "127.0.0.1", "port": int(other.stdout.readline())})
            found = only(examined("api", LLM_API_SERVER=server), Level.FAULT)
        finally:
            other.kill()
    assert f"is taken by another program (process {other.pid}, {sys.executable} -c import" in found.text
    assert f"LLM_API_PORT=8001 {own_command('run')}" in found.cure


def test_a_service_that_does_not_run_is_a_warning_with_the_command_that_starts_it(examined: Examined) -> None:
    found = only(examined("api"), Level.WARNING)
    assert "nothing listens at http://127.0.0.1:" in found.text and f"start it: `{own_command('run')}`" in found.cure
    assert f"if it has another port, name that: `LLM_API_PORT=8001 {own_command('doctor')}`" in found.cure


@pytest.fixture
def api_port(own_valkey: Valkey) -> Iterator[int]:
    """The port of an API, whose Redis is `own_valkey`."""
    app = create_app(Config(model_name=MODEL, redis_url=own_valkey.url))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()
    services_of(app).jobs.waiters.close()


def test_a_worker_that_failed_is_one_fault_with_its_cure_for_all_checks(
    examined: Examined, own_valkey: Valkey, store: RedisClient, api_port: int
) -> None:
    reason = "model_params.n_ctxx is unknown: did you mean n_ctx?"
    announce(store, worker(state=WorkerState.FAILED, detail=reason))
    variables = {
        "LLM_API_REDIS_URL": own_valkey.url,
        "LLM_API_SERVER": json.dumps({"host": "127.0.0.1", "port": api_port}),
        "LLM_API_MODEL_PARAMS": '{"n_ctxx": 2048}',
    }
    found = examined("workers", "api", "family", "model", **variables)
    fault = only(found, Level.FAULT)
    assert (fault.check, reason in fault.text) == ("workers", True) and "start it again" in fault.cure
    assert "it is ready once the fault of its worker is corrected" in only(found, Level.WARNING).text
    assert reason in only(examined("api", **variables), Level.FAULT).text, "alone it names the reason"
    assert only(examined("model", **variables), Level.FAULT).text == reason


def test_a_service_at_a_named_address_that_does_not_respond_is_a_fault(examined: Examined) -> None:
    found = only(examined("api", LLM_API_URL=f"http://127.0.0.1:{free_port()}"), Level.FAULT)
    assert "name where it is with --url or LLM_API_URL" in found.text


# --- disk, model files, hub, memory, CPU ------------------------------------------------------------------------------


def test_a_folder_that_is_a_file_is_a_fault(examined: Examined, tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    found = only(examined("disk"), Level.FAULT)
    assert "models_dir: " in found.text and "is no folder" in found.text
    assert "set LLM_API_MODELS_DIR to another folder" in found.cure


def test_a_full_disk_is_a_fault(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = only(examined("disk"), Level.FAULT)
    assert "0.0 GB are free" in found.text and "to a folder on another disk" in found.cure


def test_a_model_file_that_is_missing_is_a_fault(examined: Examined) -> None:
    found = only(examined("model", LLM_API_SETUP_PARAMS='{"path": "/nowhere/model.gguf"}'), Level.FAULT)
    assert "there is no /nowhere/model.gguf: correct the path or put the model there" in found.text


def test_a_model_file_that_was_cut_short_is_a_fault(examined: Examined, tmp_path: Path) -> None:
    with SMOLLM2_FILE.open("rb") as whole, (tmp_path / "cut.gguf").open("wb") as cut:
        cut.write(whole.read(20_000_000))
    found = only(examined("model", LLM_API_SETUP_PARAMS=json.dumps({"path": str(tmp_path / "cut.gguf")})), Level.FAULT)
    assert "cut.gguf" in found.text


def test_a_model_that_is_larger_than_the_memory_is_a_fault(examined: Examined, tmp_path: Path) -> None:
    with (tmp_path / "huge.gguf").open("wb") as file:
        file.write(b"GGUF")
        file.truncate(2**42)  # it takes no room
    setup = json.dumps({"path": str(tmp_path / "huge.gguf")})
    found = only(examined("memory", LLM_API_SETUP_PARAMS=setup), Level.FAULT)
    assert "the model's files have 4398.0 GB" in found.text and "choose a smaller model" in found.cure


def test_kernels_that_are_not_built_a_gpu_that_is_not_there_and_a_hub_that_cannot_be_reached(
    examined: Examined, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(  # so that the kernels are for another version of llama.cpp
        "import importlib.metadata as m\nversion = m.version\n"
        "m.version = lambda name: version(name) + ('-other' if name == 'llama-cpp-python' else '')\n"
    )
    found = examined(
        *("hub", "cpu", "gpu"),
        PYTHONPATH=str(tmp_path),
        HF_ENDPOINT="http://127.0.0.1:9",
        LLM_API_SETUP_PARAMS='{"repo_id": "org/model", "filename": "model.gguf"}',
        LLM_API_WORKER__GPUS="0",
    )
    assert "cannot reach http://127.0.0.1:9 for org/model" in (hub := only(found, Level.FAULT)).text
    assert "check the network, the proxy and HF_ENDPOINT" in hub.text
    bad = {finding.check: finding for finding in found if finding.level is Level.WARNING}
    assert "kernels of several rows are not built" in bad["cpu"].text and "rows_kernel/build.py" in bad["cpu"].cure
    if not Path("/dev/nvidia0").exists():
        assert "worker.gpus is 0" in bad["gpu"].text and "docker-compose.gpu.yaml" in bad["gpu"].cure


# --- how it looks -----------------------------------------------------------------------------------------------------


def test_people_get_a_line_for_each_check_and_its_cure_below(tmp_path: Path) -> None:
    ran = typed("doctor", "--only", "api", "--only", "disk", environ=environment(tmp_path, free_port()))
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("warning api  ") and lines[1].strip().startswith(
        f"-> start it: `{own_command('run')}`; "
    )
    assert lines[2].startswith("ok      disk  ")
    assert ran.exit_code == 1


def test_without_a_worker_installed_the_doctor_checks_the_rest(
    examined: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.doctor.checkup._WORKER_DIAGNOSIS", "no_workers_here.diagnosis")
    assert {finding.check for finding in examined()} == {"configuration", "redis", "api", "disk", "limits"}
