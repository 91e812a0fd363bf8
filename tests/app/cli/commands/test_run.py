"""A whole `make run`, from an empty data folder to Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.cli.command_line import REPOSITORY, environment
from tests.stack import free_port
from tests.waiting import scaled

READY_SECONDS = 60  # SmolLM2 is ready in 3 s on an idle machine


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

    def generate(self, prompt: str, path: str = "generate", max_tokens: int = 4) -> Any:
        body = json.dumps({"prompt": prompt, "params": {"max_tokens": max_tokens, "ignore_eos": True}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", body, {"Content-Type": "application/json"}
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


def test_a_run_answers_a_prompt_heals_and_stops_at_once_without_a_trace(
    tmp_path: Path, services: list[Service]
) -> None:
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
    service.generate("Once upon a time", "agenerate", max_tokens=2000)
    service.process.send_signal(signal.SIGINT)
    service.read_until("finishing 1 running job, for")
    output = service.stop()
    assert "stopping worker, then api, then valkey; Ctrl-C again stops at once" in output
    assert "returning 1 job to the queue" in output, "the second Ctrl-C waits for none, and loses none"
    assert "overcommit" not in output
    assert "did not stop within" not in output
    assert service.process.returncode == 0
    assert not [name for name, pid in programs.items() if Path(f"/proc/{pid}").exists()]
    assert list((tmp_path / "data").rglob("*.aof")), "the queue is on disk"
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0, "and no other user can read it"


def test_a_run_that_requires_a_key_starts_after_the_command_that_it_names(
    tmp_path: Path, services: list[Service]
) -> None:
    auth = {"LLM_API_AUTH": '{"required": true}'}
    services.append(refused := Service(tmp_path, **auth))
    output = refused.process.communicate(timeout=scaled(READY_SECONDS))[0].decode()
    command = re.search(r"make one with `([^`]+) NAME --scope admin`", output.splitlines()[-1])
    assert command and refused.process.returncode == os.EX_CONFIG, output
    subprocess.run([*command[1].split(), "anna"], cwd=REPOSITORY, env=environment(tmp_path, 1, **auth), check=True)
    services.append(service := Service(tmp_path, **auth))
    service.read_until("ready: ")


def test_a_model_that_cannot_load_stops_the_run_with_its_reason_as_the_last_line(
    tmp_path: Path, services: list[Service]
) -> None:
    for mistake in ({"path": "/nowhere/model.gguf"}, {"package": "llm_smollm3"}):
        services.append(service := Service(tmp_path, LLM_API_SETUP_PARAMS=json.dumps(mistake), LLM_API_MODEL_NAME="m"))
        output = service.process.communicate(timeout=scaled(READY_SECONDS))[0].decode()
        assert service.process.returncode == os.EX_CONFIG, output
        assert "worker exited with status 78: a restart cannot fix that" in output
    last = output.splitlines()[-1]
    assert last.startswith("llm-api | stopped; correct this, then run again: worker: ") and "llm_smollm3" in last
    assert "/nowhere" not in output, "what was corrected is not reported again"
