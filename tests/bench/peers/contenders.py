"""The servers that are compared, all on one model file: how each is started, stopped and called."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil

from tests.bench.load import Body
from tests.stack import ROOT

READY_SECONDS = 120.0
STOP_SECONDS = 30.0
SLOTS, CELLS = 32, 2048  # of llama-server at its best; ours has as many by default
CPUS = len(os.sched_getaffinity(0))
CHAT_PATH = "/v1/chat/completions"

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the contenders of one model file are started with. folder: for their data and logs.

    first_port: a contender listens on its own of the four ports from there on. llama_server: its path.
    llama_cpp_python: where the web framework of its server is installed. None = it does not take part.
    """

    model: Path
    folder: Path
    first_port: int
    llama_server: Path | None = None
    llama_cpp_python: Path | None = None


class Contender(ABC):
    """A server with its children. Its output goes to a log file."""

    name: ClassVar[str]
    port_offset: ClassVar[int]
    completion_path: ClassVar[str]
    stream_path: ClassVar[str]
    ready_path: ClassVar[str]

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.port = setup.first_port + self.port_offset
        self._log = setup.folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return {}

    @abstractmethod
    def body(self, prompt: str, new_tokens: int) -> Body:
        """A greedy completion that no end token cuts short."""

    @abstractmethod
    def read(self, body: bytes) -> Answer: ...

    @abstractmethod
    def delta(self, data: str) -> str:
        """The text of one server-sent event."""

    def chat_body(self, messages: Messages, new_tokens: int) -> Body:
        return {"messages": messages, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=ROOT, env=os.environ | self.environment(), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_ready()
            yield
        finally:
            self._stop()

    def _stop(self) -> None:
        """End it with its children: one that lived on would be measured with the next file."""
        assert self._process is not None
        family = self._family()
        self.resume()
        self._process.terminate()
        _, alive = psutil.wait_procs(family, STOP_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop its processes, so that it takes no CPU time while another server is measured."""
        for process in self._family():
            process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in reversed(self._family()):
            process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def on_turn(self) -> Iterator[None]:
        self.resume()
        self._wait_ready()
        try:
            yield
        finally:
            self.pause()

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        if self._process.poll() is not None:
            return []
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"{self.name} ended:\n{self._log.read_text()}"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + self.ready_path, timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{self.name} is not ready:\n{self._log.read_text()}")


class Ours(Contender):
    """`make run`, with the config.yaml of this repository but for the model file."""

    name = "ours"
    port_offset = 0
    completion_path, stream_path, ready_path = "/generate", "/agenerate", "/readyz"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "app.cli", "run"]

    def environment(self) -> dict[str, str]:
        return {
            "LLM_API_CONFIG": str(ROOT / "config.yaml"),
            "LLM_API_SERVER__PORT": str(self.port),
            "LLM_API_SERVER__HOST": "127.0.0.1",
            "LLM_API_DATA_DIR": str(self._setup.folder / "data"),
            "LLM_API_SETUP_PARAMS": json.dumps({"path": str(self._setup.model)}),
        }

    def body(self, prompt: str, new_tokens: int) -> Body:
        params = {"max_tokens": new_tokens, "temperature": 0, "repeat_penalty": 1.0, "ignore_eos": True}
        return {"prompt": prompt, "params": params, "details": True}

    def read(self, body: bytes) -> Answer:
        job = json.loads(body)
        return Answer(job["output"]["text"], job["usage"]["prompt_tokens"], job["usage"]["completion_tokens"])

    def delta(self, data: str) -> str:
        return data

    def prompts(self, inputs: Sequence[str | Messages]) -> list[list[int]]:
        """Return the tokens of texts and chats."""
        bodies = [{"text": each} if isinstance(each, str) else {"messages": each} for each in inputs]
        with httpx.Client(base_url=self.url, timeout=30) as client:
            answers = [client.post("/tokenize", json=body).raise_for_status().json() for body in bodies]
        return [answer["tokens"] for answer in answers]


class LlamaServer(Contender):
    """llama.cpp's own server."""

    completion_path, stream_path, ready_path = "/completion", "/completion", "/health"
    options: ClassVar[list[str]]

    def command(self) -> list[str]:
        return [str(self._setup.llama_server), "-m", str(self._setup.model), "--port", str(self.port), *self.options]

    def body(self, prompt: str, new_tokens: int) -> Body:
        # One sampler instead of its chain of eight: greedy decoding needs no other, and one is faster.
        return {
            "prompt": prompt,
            "n_predict": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "samplers": ["temperature"],
            "response_fields": ["content", "tokens_evaluated", "tokens_predicted"],
        }

    def read(self, body: bytes) -> Answer:
        answer = json.loads(body)
        return Answer(answer["content"], answer["tokens_evaluated"], answer["tokens_predicted"])

    def delta(self, data: str) -> str:
        text: str = json.loads(data)["content"]
        return text

    def chat_body(self, messages: Messages, new_tokens: int) -> Body:
        return {**super().chat_body(messages, new_tokens), "samplers": ["temperature"]}


class LlamaServerAtItsBest(LlamaServer):
    name = "llama-server-best"
    port_offset = 1
    options: ClassVar = ["-np", str(SLOTS), "-c", str(SLOTS * CELLS), "--no-kv-unified", "-t", str(CPUS)]


class LlamaServerByDefault(LlamaServer):
    name = "llama-server-default"
    port_offset = 2
    options: ClassVar = []


class LlamaCppPython(Contender):
    """llama-cpp-python's own server: one request at a time."""

    name = "llama-cpp-python"
    port_offset = 3
    completion_path, stream_path, ready_path = "/v1/completions", "/v1/completions", "/v1/models"

    def command(self) -> list[str]:
        options = {"model": str(self._setup.model), "n_ctx": CELLS, "n_threads": CPUS}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        return [sys.executable, "-m", "llama_cpp.server", *address, "--verbose", "false", *arguments]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self._setup.llama_cpp_python)}

    def body(self, prompt: str, new_tokens: int) -> Body:
        return {"prompt": prompt, "max_tokens": new_tokens, "temperature": 0}  # it cannot ignore the end of a text

    def read(self, body: bytes) -> Answer:
        answer: dict[str, Any] = json.loads(body)
        usage = answer["usage"]
        return Answer(answer["choices"][0]["text"], usage["prompt_tokens"], usage["completion_tokens"])

    def delta(self, data: str) -> str:
        text: str = json.loads(data)["choices"][0]["text"]
        return text
