"""What must not be there when a run begins: processes of another run, and ports that are taken."""

import contextlib
import errno
import os
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

MARK = "LLM_BENCH_PEERS"  # an environment variable, which all processes of a run inherit
_BENCHES = {"tests.bench", "tests.bench.peers", "tests.bench.bare_loop"}


class Refused(Exception):
    """The figures would be of something else than they say. The message names the process and the cure."""


def mark_children() -> None:
    """Mark the processes that this one starts from now on, and theirs, as those of a run."""
    os.environ[MARK] = str(os.getpid())


def refuse_leftovers(servers: Collection[Path] = ()) -> None:
    """Raise Refused while processes of a benchmark live, or a server whose program is one of `servers`."""
    living = [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _is_of_a_run(process, [str(path) for path in servers])
    ]
    if living:
        names = " and ".join(f"process {process.pid} ({_name(process)})" for process in living)
        end = f"kill -KILL {' '.join(str(process.pid) for process in living)}"
        raise Refused(f"another run still has {names}: wait for its end, or: {end}")


def refuse_taken_ports(ports: Iterable[int]) -> None:
    """Raise Refused when a server could not listen on one of the ports of this machine."""
    for port in ports:
        if _is_taken(port):
            raise Refused(f"port {port} is taken by {_owner(port)}: end it, or choose four others (PORT=, --port)")


def _is_of_a_run(process: psutil.Process, servers: list[str]) -> bool:
    with contextlib.suppress(psutil.Error):  # it has ended, or is another user's
        return _module(process.cmdline()) in _BENCHES or process.exe() in servers or MARK in process.environ()
    return False


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        command = process.cmdline()
        return _module(command) or Path(command[0]).name if command else process.name()
    return "ended"


def _module(command: list[str]) -> str:
    """Return the module that Python runs, or nothing."""
    return command[command.index("-m") + 1] if "-m" in command[:-1] and "python" in command[0] else ""


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run may still linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def _owner(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            return f"process {connection.pid} ({_name(psutil.Process(connection.pid))})"
    return "a process of another user"
