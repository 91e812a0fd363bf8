"""What the terminal shows when programs start, die and stop, and that no process is left afterwards."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.programs import Program
from tests.waiting import scaled


def python(name: str, code: str, **more: Any) -> Program:
    return Program(name=name, command=[sys.executable, "-c", code], **more)


class Run:
    """A supervisor in a process of its own, and what its terminal shows. `prelude`: statements to run first."""

    def __init__(self, *listed: Program, prelude: str = "pass") -> None:
        code = (
            "import pickle; from app.cli.supervisor import Supervisor;"
            f"{prelude}; raise SystemExit(Supervisor(pickle.loads({pickle.dumps(listed)!r})).run())"
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
        return self.output + self.process.communicate(timeout=scaled(20))[0].decode()


STEADY = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
POLITE = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)));"
    "print('pid', os.getpid(), flush=True); time.sleep(600)"
)
WAIT = "import time; time.sleep(1)"  # until the others have started
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STEADY}"


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.process.kill()
        run.process.wait()
        assert run.process.stdout
        run.process.stdout.close()


def is_gone(pid: int) -> bool:
    end = time.monotonic() + scaled(5)
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


def test_a_configuration_fault_stops_everything_and_its_line_is_the_last_one(runs: list[Run]) -> None:
    runs.append(run := Run(python("api", POLITE), python("worker", f"{WAIT}; print('no model'); raise SystemExit(78)")))
    run.read_until("worker exited with status 78: a restart cannot fix that")
    assert run.process.wait(scaled(10)) == 78
    output = run.read_until("stopped; correct this, then run again: no model\n")
    assert "stopping api\n" in output and "api | bye" in output and "starting it again" not in output
    assert is_gone(run.pid_of("api"))


def test_the_status_of_a_program_that_is_stopped_is_no_fault(runs: list[Run]) -> None:
    code = POLITE.replace("sys.exit(0)", "sys.exit(78)")
    runs.append(run := Run(python("worker", code)))
    run.read_until("worker | pid")
    assert "correct this" not in run.stop()
    assert run.process.returncode == 0


def test_a_command_that_does_not_exist_is_named(runs: list[Run]) -> None:
    runs.append(run := Run(Program(name="worker", command=["/nowhere/python"])))
    assert "/nowhere/python" in run.read_until("; starting it again in 1 s")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_programs_stop_from_the_last_to_the_first_and_leave_no_process(runs: list[Run], sig: int) -> None:
    runs.append(run := Run(*(python(name, POLITE) for name in ("valkey", "api", "worker"))))
    for name in ("valkey", "api", "worker"):
        run.read_until(f"{name} | pid")
    output = run.stop(sig)
    assert "llm-api | stopping worker, then api, then valkey; Ctrl-C again stops at once" in output
    assert output.index("worker | bye") < output.index("api | bye") < output.index("valkey | bye")
    assert run.process.returncode == 0
    assert all(is_gone(run.pid_of(name)) for name in ("valkey", "api", "worker"))


def test_a_program_that_will_not_stop_is_killed_after_its_grace(runs: list[Run]) -> None:
    runs.append(run := Run(python("worker", STUBBORN, grace_seconds=1)))
    run.read_until("worker | pid")
    assert "worker did not stop within 1 s and was killed" in run.stop()
    assert is_gone(run.pid_of("worker"))


def test_a_second_ctrl_c_ends_at_once_what_waits_and_what_comes_after_it(runs: list[Run]) -> None:
    patient = STUBBORN.replace(
        "import signal;", "import signal; signal.signal(signal.SIGUSR2, lambda *_: os._exit(0));"
    )
    programs = [python(name, patient, grace_seconds=60, hurry_signal=signal.SIGUSR2) for name in ("api", "worker")]
    runs.append(run := Run(python("valkey", POLITE), *programs))
    for name in ("valkey", "api", "worker"):
        run.read_until(f"{name} | pid")
    run.process.send_signal(signal.SIGINT)
    run.read_until("stopping worker, then api, then valkey")
    assert Path(f"/proc/{run.pid_of('worker')}").exists(), "it waits for its jobs"
    output = run.stop(signal.SIGINT)
    assert "llm-api | stopping at once\n" in output and "was killed" not in output
    assert "valkey | bye" in output, "what writes jobs to the disk is left in peace"
    assert all(is_gone(run.pid_of(name)) for name in ("valkey", "api", "worker"))


def test_a_muted_line_is_not_shown(runs: list[Run]) -> None:
    code = f"print('one'); print('advice of valkey'); print('two'); {STEADY}"
    runs.append(run := Run(python("valkey", code, muted=["advice"])))
    output = run.read_until("valkey | pid")
    assert "one" in output and "two" in output and "advice" not in output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has pdeathsig")
def test_a_killed_supervisor_leaves_no_process(runs: list[Run]) -> None:
    runs.append(run := Run(python("valkey", STEADY)))
    run.read_until("valkey | pid")
    run.process.kill()
    assert is_gone(run.pid_of("valkey"))


def test_a_path_with_blanks_and_percent_signs_reaches_the_program_unharmed(runs: list[Run]) -> None:
    code = "import sys; print(sys.argv[1:])"
    command = [sys.executable, "-c", code, "/a b/100%(x)s", "", "it's"]
    runs.append(run := Run(Program(name="api", command=command)))
    run.read_until("""api | ['/a b/100%(x)s', '', "it's"]""")


def test_a_program_that_ran_for_a_while_is_restarted_without_a_pause(runs: list[Run]) -> None:
    prelude = "import app.cli.supervisor as supervisor; supervisor._STEADY_SECONDS = 0"
    runs.append(run := Run(python("api", STEADY), prelude=prelude))
    run.read_until("api | pid")
    os.kill(run.pid_of("api"), signal.SIGTERM)
    run.read_until("api was killed by SIGTERM; starting it again\n")


def test_the_pauses_between_restarts_stop_growing(runs: list[Run]) -> None:
    prelude = "import app.cli.supervisor as supervisor; supervisor._LONGEST_PAUSE_SECONDS = 1"
    runs.append(run := Run(python("api", "raise SystemExit(3)"), prelude=prelude))
    run.read_until("starting it again in 1 s\n")
    run.output = ""
    assert "starting it again in 1 s\n" in run.read_until("starting it again")


def test_unfinished_lines_and_progress_bars_are_printed_line_by_line(runs: list[Run]) -> None:
    code = r"import sys; sys.stdout.write('10 %\r20 %\r\n\nthe end'); raise SystemExit(3)"
    runs.append(run := Run(python("worker", code)))
    output = run.read_until("worker exited with status 3")
    assert output.startswith(" worker | 10 %\n worker | 20 %\n worker | the end\nllm-api | ")


def test_what_outlives_its_program_still_reaches_the_terminal_and_delays_no_restart(runs: list[Run]) -> None:
    shell = "(sleep 2; echo last words) & exit 3"
    runs.append(run := Run(Program(name="api", command=["sh", "-c", shell])))
    assert "last words" not in run.read_until("exited with status 3; starting it again in 1 s")
    run.read_until("api | last words")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has subreapers")
def test_orphans_are_reaped_where_they_become_children_as_under_process_1(runs: list[Run]) -> None:
    prelude = "import ctypes; ctypes.CDLL(None).prctl(36, 1)"  # PR_SET_CHILD_SUBREAPER
    code = f"import subprocess, sys; child = subprocess.Popen(['sleep', '0.5']); print('orphan', child.pid); {STEADY}"
    runs.append(run := Run(python("worker", code), prelude=prelude))
    run.read_until("worker | pid")
    orphan = int(run.output.split("orphan ")[1].split()[0])
    os.kill(run.pid_of("worker"), signal.SIGKILL)
    assert is_gone(orphan)


def test_the_limit_of_open_files_is_raised(runs: list[Run]) -> None:
    prelude = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))"
    code = "import resource; print('limit', resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    runs.append(run := Run(python("api", code), prelude=prelude))
    run.read_until("api | limit 2048")


def test_a_terminal_that_is_gone_stops_no_program(runs: list[Run]) -> None:
    runs.append(run := Run(python("api", f"print('x'); {STEADY}")))
    run.read_until("api | pid")
    assert run.process.stdout
    run.process.stdout.close()
    os.kill(pid := run.pid_of("api"), signal.SIGKILL)
    assert is_gone(pid)
    time.sleep(2)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(scaled(10)) == 0
