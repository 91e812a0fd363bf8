"""The contenders run on the file of the run, and end with all their processes."""

import sys
from pathlib import Path

import psutil
import pytest

from app.config.loader import load_config
from tests.bench.load import Body
from tests.bench.peers import contenders
from tests.bench.peers.contenders import (
    Answer,
    Contender,
    LlamaCppPython,
    LlamaServerAtItsBest,
    LlamaServerByDefault,
    Ours,
    Setup,
)
from tests.stack import ROOT, free_port

STUBBORN = """
import http.server, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class Stubborn(Contender):
    """A server with a child that does not end at SIGTERM."""

    name = "stubborn"
    port_offset = 0
    completion_path = stream_path = ready_path = "/"

    def command(self) -> list[str]:
        return [sys.executable, "-c", STUBBORN, str(self.port)]

    def body(self, prompt: str, new_tokens: int) -> Body:
        raise NotImplementedError

    def read(self, body: bytes) -> Answer:
        raise NotImplementedError

    def delta(self, data: str) -> str:
        raise NotImplementedError


def test_every_contender_runs_the_file_of_the_run_on_a_port_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "any.gguf"
    file.touch()
    setup = Setup(
        model=file, folder=tmp_path, first_port=20_100, llama_server=Path("/llama-server"), llama_cpp_python=tmp_path
    )
    ours = Ours(setup)
    assert load_config(ROOT / "config.yaml", ours.environment()).setup_params == {"path": str(file)}
    others = [kind(setup) for kind in (LlamaServerAtItsBest, LlamaServerByDefault, LlamaCppPython)]
    assert all(str(file) in other.command() for other in others)
    assert [other.port for other in [ours, *others]] == [20_100, 20_101, 20_102, 20_103]


def test_a_contender_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "STOP_SECONDS", 0.2)
    contender = Stubborn(Setup(model=tmp_path, folder=tmp_path, first_port=free_port()))
    with contender.running():
        [family] = [
            [process, *process.children()] for process in psutil.Process().children() if STUBBORN in process.cmdline()
        ]
        contender.pause()
    assert len(family) == 2 and not psutil.wait_procs(family, 5)[1]
