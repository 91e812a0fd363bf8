"""What `make run` runs, as supervisord itself reads it, and what the terminal says when a program dies."""

import io
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from app.cli.supervision import Program, programs, supervisor_config
from app.config.settings import Config

VALKEY = Path("/some where/valkey-server")


def read_by_supervisord(text: str) -> dict[str, Any]:
    options = ServerOptions()
    options.here = "/"
    groups = options.read_config(io.StringIO(text)).process_group_configs
    return {group.name: group for group in groups}


def config_of(*found: Program) -> dict[str, Any]:
    return read_by_supervisord(supervisor_config(found, pid_file=Path("/tmp/pid"), min_open_files=1024))


def test_the_worker_stops_first_and_valkey_last(tmp_path: Path) -> None:
    groups = config_of(*programs(Config(model_name="m", data_dir=tmp_path), VALKEY, 7000))
    assert sorted(groups, key=lambda name: groups[name].priority) == ["valkey", "api", "worker", "llm-api"]


def test_without_an_embedded_valkey_three_programs_run(tmp_path: Path) -> None:
    names = [program.name for program in programs(Config(model_name="m"), None, 0)]
    assert names == ["api", "worker", "llm-api"]


def test_valkey_listens_on_loopback_only_and_keeps_every_write(tmp_path: Path) -> None:
    command = " ".join(programs(Config(model_name="m", data_dir=tmp_path), VALKEY, 7000)[0].command)
    for option in (
        "--bind 127.0.0.1 --port 7000",
        f"--dir {tmp_path}",
        "--appendonly yes",
        "--maxmemory-policy noeviction",
    ):
        assert option in command


def test_a_path_with_blanks_and_percent_signs_reaches_the_program_unharmed() -> None:
    group = config_of(Program(name="p", command=["/a b/100%(x)s", "", "it's"], order=1))["p"]
    assert shlex.split(group.process_configs[0].command) == ["/a b/100%(x)s", "", "it's"]


def test_only_a_configuration_fault_ends_a_program_for_good() -> None:
    groups = config_of(*programs(Config(model_name="m"), VALKEY, 7000))
    worker, herald = (groups[name].process_configs[0] for name in ("worker", "llm-api"))
    assert worker.exitcodes == [78]
    assert worker.startretries > 1000
    assert herald.autorestart is False


def test_no_server_and_no_log_file_of_supervisord_is_opened() -> None:
    text = supervisor_config([], pid_file=Path("/tmp/pid"), min_open_files=1024)
    assert "http_server" not in text
    assert "logfile=/dev/null" in text


def python(name: str, code: str, *, order: int = 1, grace_seconds: int = 5) -> Program:
    return Program(name=name, command=[sys.executable, "-c", code], order=order, grace_seconds=grace_seconds)


class Run:
    """`supervise` in a process of its own, as its terminal shows it."""

    def __init__(self, *listed: Program) -> None:
        code = (
            "from app.cli.supervision import Program; from app.cli.supervisor_console import supervise;"
            f"supervise({list(listed)!r})"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = ""

    def read_until(self, text: str, timeout_seconds: float = 15) -> str:
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        end = time.monotonic() + timeout_seconds
        while text not in self.output:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.output}"
            self.output += (self.process.stdout.read() or b"").decode()
            time.sleep(0.02)
        return self.output

    def pid_of(self, name: str) -> int:
        line = next(line for line in reversed(self.output.splitlines()) if line.strip().startswith(f"{name} | pid "))
        return int(line.rsplit(" ", 1)[1])

    def stop(self, sig: int = signal.SIGTERM) -> str:
        self.process.send_signal(sig)
        return self.output + self.process.communicate(timeout=20)[0].decode()


STEADY = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
POLITE = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)));"
    "print('pid', os.getpid(), flush=True); time.sleep(600)"
)
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STEADY}"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a killed supervisor cannot tidy up
    started: list[Run] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
        run.process.communicate()


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_a_killed_program_is_named_with_its_signal_and_started_again(runs: list[Run]) -> None:
    runs.append(run := Run(python("worker", STEADY)))
    run.read_until("worker | pid")
    first = run.pid_of("worker")
    os.kill(first, signal.SIGKILL)
    run.read_until("worker was killed by SIGKILL; starting it again in 1 s")
    run.output = ""
    run.read_until("worker | pid")
    assert run.pid_of("worker") != first


def test_a_program_that_keeps_dying_is_started_at_growing_distances(runs: list[Run]) -> None:
    runs.append(run := Run(python("api", "print('boom'); raise SystemExit(3)")))
    output = run.read_until("starting it again in 2 s")
    assert "    api | boom\n" in output
    assert "llm-api | api exited with status 3; starting it again in 1 s" in output


def test_a_configuration_fault_is_not_retried_and_the_others_stay_up(runs: list[Run]) -> None:
    runs.append(run := Run(python("api", STEADY), python("worker", "print('no model'); raise SystemExit(78)")))
    run.read_until("worker exited with status 78; a restart cannot cure that")
    run.read_until("api | pid")
    time.sleep(2)
    assert Path(f"/proc/{run.pid_of('api')}").exists()
    assert run.stop().count("no model") == 1


def test_a_command_that_does_not_exist_is_said(runs: list[Run]) -> None:
    runs.append(run := Run(Program(name="worker", command=["/nowhere/python"], order=1)))
    assert "/nowhere/python" in run.read_until("; starting it again in 1 s")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_goes_from_the_last_to_the_first_and_leaves_no_process(runs: list[Run], sig: int) -> None:
    runs.append(
        run := Run(*(python(name, POLITE, order=order) for order, name in enumerate(("valkey", "api", "worker"))))
    )
    for name in ("valkey", "api", "worker"):
        run.read_until(f"{name} | pid")
    output = run.stop(sig)
    assert "llm-api | stopping worker, then api, then valkey\n" in output
    assert output.index("worker | bye") < output.index("api | bye") < output.index("valkey | bye")
    assert run.process.returncode == 0
    assert all(is_gone(run.pid_of(name)) for name in ("valkey", "api", "worker"))


def test_a_program_that_will_not_stop_is_killed_after_its_grace(runs: list[Run]) -> None:
    runs.append(run := Run(python("worker", STUBBORN, grace_seconds=1)))
    run.read_until("worker | pid")
    assert "worker did not stop within 1 s and was killed" in run.stop()
    assert is_gone(run.pid_of("worker"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells a child that its parent died")
def test_a_killed_supervisor_leaves_no_process(runs: list[Run]) -> None:
    runs.append(run := Run(python("valkey", STEADY)))
    run.read_until("valkey | pid")
    run.process.kill()
    assert is_gone(run.pid_of("valkey"))
