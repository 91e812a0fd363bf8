"""Run programs side by side: copy their output to the terminal, restart those that die, stop all of them in order.

Why no library does this: docs/decisions/0029.
"""

import contextlib
import math
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

from app.cli.programs import Program
from app.cli.status_line import TERMINAL
from app.config.open_files import raise_open_file_limit

_STOP_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
_STEADY_SECONDS = 10  # a program that dies sooner is restarted after a pause, which grows with each such death
_LONGEST_PAUSE_SECONDS = 30
_HURRY_SECONDS = 5  # a program that has to end at once is killed then; a worker hands back its jobs within 4
_READ_BYTES = 65536  # as much as a pipe holds


class Supervisor:
    """Runs programs until SIGINT, SIGTERM, SIGHUP or SIGQUIT, or until one of them exits with 78.

    `stopping` is set from then on. A SIGINT while it stops makes the programs end at once. It installs signal handlers,
    so it works in the main thread only.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self.stopping = threading.Event()
        self._hurry = False
        self._faulty: _Child | None = None
        self._selector = selectors.DefaultSelector()
        self._signals = self._catch_signals()
        launcher = die_with_parent()
        self._children = [_Child(program, launcher, self._selector) for program in programs]

    def run(self) -> int:
        """Start the programs in order and keep them running; after a signal stop them in reverse order.

        Returns the exit status: 78 where a program exited so, because a restart cannot fix that.
        """
        raise_open_file_limit()
        while not self.stopping.is_set():
            for child in self._children:
                if child.start_at <= time.monotonic():
                    child.start()
            self._wait_until(min(child.start_at for child in self._children))
        self._children.reverse()
        names = ", then ".join(child.program.name for child in self._children if child.pid)
        if self._faulty is None:
            say(f"stopping {names}; Ctrl-C again stops at once: jobs that run return to the queue")
        else:
            cause = f"{self._faulty.program.name} exited with status {os.EX_CONFIG}: a restart cannot fix that"
            say(f"{cause}; stopping {names}")
        for child in self._children:
            self._stop(child)
        if self._faulty is None:
            return 0
        say(f"stopped; correct this, then run again: {self._faulty.last_line}")
        return os.EX_CONFIG

    def _stop(self, child: "_Child") -> None:
        hurry_signal, seconds = child.program.hurry_signal, child.program.grace_seconds
        if hurry_signal is None or not self._hurry:
            child.send(signal.SIGTERM)
            self._wait_for_end(child, seconds, until_hurry=hurry_signal is not None)
        if hurry_signal is not None and self._hurry:
            seconds = _HURRY_SECONDS
            child.send(hurry_signal)
            self._wait_for_end(child, seconds)
        if child.pid:
            child.send(signal.SIGKILL)
            say(f"{child.program.name} did not stop within {seconds} s and was killed")
        while child.pid:
            self._wait_until(math.inf)

    def _wait_for_end(self, child: "_Child", seconds: float, *, until_hurry: bool = False) -> None:
        deadline = time.monotonic() + seconds
        while child.pid and time.monotonic() < deadline and not (until_hurry and self._hurry):
            self._wait_until(deadline)

    def _wait_until(self, moment: float) -> None:
        """Wait for output, signals and deaths, and handle them. Return after the first, at `moment` at the latest."""
        timeout_seconds = None if moment == math.inf else max(0, moment - time.monotonic())
        for key, _ in self._selector.select(timeout_seconds):
            key.data()
        self._reap()

    def _catch_signals(self) -> int:
        """Have the number of each signal written into a pipe, and return its end, which the main loop reads."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, self._read_signals)
        return reader

    def _read_signals(self) -> None:
        numbers = os.read(self._signals, _READ_BYTES)
        if self.stopping.is_set() and signal.SIGINT in numbers and not self._hurry:
            self._hurry = True
            say("stopping at once")
        elif not _STOP_SIGNALS.isdisjoint(numbers):
            self.stopping.set()

    def _reap(self) -> None:
        """Take note of each child process that has ended. Process 1 of a container has orphans among them."""
        with contextlib.suppress(ChildProcessError):  # there is no child at all
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for child in self._children:
                    if child.pid == ended[0]:
                        self._on_death(child, os.waitstatus_to_exitcode(ended[1]))

    def _on_death(self, child: "_Child", exit_code: int) -> None:
        if exit_code == os.EX_CONFIG and not self.stopping.is_set():
            self._faulty = child
            self.stopping.set()
        child.on_death(exit_code, restart=not self.stopping.is_set())


class _Child:
    """One program: its process, while it has one, and its output.

    pid: Of the process, or 0.
    start_at: When to start the next one, by `time.monotonic`.
    last_line: Of its output.
    """

    def __init__(self, program: Program, launcher: Sequence[str], selector: selectors.BaseSelector) -> None:
        """`launcher`: stands before the program's command, as `setpriv --pdeathsig TERM --` does."""
        self.program = program
        self._command = [*launcher, *program.command]
        self.pid = 0
        self.start_at = 0.0
        self.last_line = ""
        self._started_at = 0.0
        self._quick_deaths = 0
        self._unfinished_line = b""
        self._reader, self._writer = os.pipe()  # one for all its processes: what outlives a process may still write
        os.set_blocking(self._reader, False)
        selector.register(self._reader, selectors.EVENT_READ, self._copy_output)

    def start(self) -> None:
        self._started_at, self.start_at = time.monotonic(), math.inf
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are ours
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._writer,
                stderr=self._writer,
                umask=self.program.umask,
                process_group=0,  # so that Ctrl-C in a terminal reaches the supervisor alone
            )
        except OSError as error:
            self._restart_after(f"cannot be started ({error})")
        else:
            self.pid = self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process. Its children get all but SIGTERM too, which they get from it."""
        if self.pid:
            (os.kill if number == signal.SIGTERM else os.killpg)(self.pid, number)

    def on_death(self, exit_code: int, *, restart: bool) -> None:
        """Print the last output and, if `restart`, how the process ended, and plan the next one.

        Args:
            exit_code: As `subprocess.Popen.returncode`: negative after a signal.
        """
        self._process.returncode, self.pid = exit_code, 0
        self._copy_output()
        self._print(b"\n")
        if restart:
            self._restart_after(_ending(exit_code))

    def _restart_after(self, ending: str) -> None:
        now = time.monotonic()
        self._quick_deaths = self._quick_deaths + 1 if now - self._started_at < _STEADY_SECONDS else 0
        pause_seconds = min(self._quick_deaths, _LONGEST_PAUSE_SECONDS)
        self.start_at = now + pause_seconds
        when = f" in {pause_seconds} s" if pause_seconds else ""
        say(f"{self.program.name} {ending}; starting it again{when}")

    def _copy_output(self) -> None:
        with contextlib.suppress(BlockingIOError):  # there is none
            self._print(os.read(self._reader, _READ_BYTES))

    def _print(self, output: bytes) -> None:
        *lines, self._unfinished_line = (self._unfinished_line + output.replace(b"\r", b"\n")).split(b"\n")
        for line in filter(bytes.strip, lines):
            self.last_line = line.decode(errors="replace")
            if not any(text in self.last_line for text in self.program.muted):
                say(self.last_line, speaker=self.program.name)


def say(line: str, *, speaker: str = "llm-api") -> None:
    """Print a line behind the name of the program that it comes from."""
    TERMINAL.say(f"{speaker:>7} | {line}")


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    names = {known.value: known.name for known in signal.Signals}  # real-time signals have none
    return f"was killed by {names.get(-exit_code, f'signal {-exit_code}')}"


def die_with_parent() -> list[str]:
    """Return a launcher whose program gets SIGTERM when the supervisor is killed; without util-linux, an empty one."""
    setpriv = shutil.which("setpriv")
    launcher = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    usable = setpriv and subprocess.run([*launcher, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603
    return launcher if usable else []
