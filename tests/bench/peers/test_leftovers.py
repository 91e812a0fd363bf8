"""A run does not begin beside what would spoil its figures."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.peers.leftovers import MARK, Refused, refuse_leftovers, refuse_taken_ports
from tests.waiting import until

SLEEP = shutil.which("sleep") or "/bin/sleep"


def refusal(*servers: Path) -> str:
    """Return the message, which also names what else runs on this machine; "" without one."""
    try:
        refuse_leftovers(servers)
    except Refused as refused:
        return str(refused)
    return ""


@contextlib.contextmanager
def living(command: list[str], mark: str | None, **options: str | Path) -> Iterator[int]:
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    with subprocess.Popen(command, env=environment | ({MARK: mark} if mark else {}), **options) as process:  # type: ignore[call-overload]
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_stopped_server_of_an_earlier_run_is_named_with_the_command_that_ends_it() -> None:
    with living(["/some/llama-server", "60"], "4711", executable=SLEEP) as pid:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: f"{pid} (llama-server)" in refusal())
        message = refusal()
        assert "\n" not in message and str(pid) in message.partition(" or: kill -KILL ")[2].split()
    assert str(pid) not in refusal()


def test_the_bare_loop_of_another_benchmark_is_named(tmp_path: Path) -> None:
    module = tmp_path / "tests" / "bench" / "bare_loop.py"
    module.parent.mkdir(parents=True)
    module.write_text("import time; time.sleep(60)")
    with living([sys.executable, "-m", "tests.bench.bare_loop"], None, cwd=tmp_path) as pid:
        until(lambda: f"{pid} (tests.bench.bare_loop)" in refusal())


def test_only_the_very_program_that_is_to_be_measured_is_refused_without_a_mark() -> None:
    with living(["llama-server", "60"], None, executable=SLEEP) as pid:
        until(lambda: f"{pid} (llama-server)" in refusal(Path(SLEEP).resolve()))
        assert f"{pid} (llama-server)" not in refusal(Path(sys.executable))


def test_a_taken_port_is_named_with_its_process() -> None:
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        with pytest.raises(Refused, match=rf"port {port} is taken by process {os.getpid()} \(.*PORT="):
            refuse_taken_ports([port])


def test_a_port_with_lingering_connections_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    refuse_taken_ports([port])
