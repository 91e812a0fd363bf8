"""transformers' own server with its own continuous batching, `transformers serve --continuous-batching`, as a peer."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.bench.load import Body, Result, run_load
from tests.stack import free_port
from workers.engines.shared.resources import usable_cpus

# The fastest of those tried on 2 cores; the figures are in docs/performance.md.
SETTINGS = ("--cb-max-batch-tokens", "2048", "--cb-num-blocks", "64")
READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Peer:
    url: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    def run(self, prompts: Sequence[str], new_tokens: int) -> Result:
        """Run all prompts at once. Raises when one fails, because the rate of the others would mean nothing."""
        bodies = [self._body(prompt, new_tokens) for prompt in prompts]
        result = run_load(self.url, bodies, len(bodies), path="/v1/completions")
        assert not result.errors and result.tokens == len(prompts) * new_tokens, result.errors
        return result

    def idle_share(self, seconds: float = 1.0) -> float:
        """Return the share of one core that it takes while idle."""
        return psutil.Process(self.process.pid).cpu_percent(seconds) / 100

    def _body(self, prompt: str, new_tokens: int) -> Body:
        """Greedy, and no token ends the text."""
        generation = {"do_sample": False, "eos_token_id": -1, "max_new_tokens": new_tokens}
        return {"model": str(self.folder), "prompt": prompt, "generation_config": json.dumps(generation)}


@contextlib.contextmanager
def serve_peer(folder: Path, log: Path, settings: Sequence[str] = SETTINGS) -> Iterator[Peer]:
    """The server with the model of a folder, loaded, in bfloat16."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--continuous-batching"]
    command += ["--device", "cpu", "--dtype", "bfloat16", "--port", str(port), *settings]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(usable_cpus())}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        peer = Peer(f"http://127.0.0.1:{port}", folder, process)
        _wait_ready(peer, log)
        yield peer
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(peer: Peer, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{peer.url}/health", timeout=1).status_code == 200:
                return
        assert peer.process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)
