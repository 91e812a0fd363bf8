"""Runs supervisord in this process and says on the terminal, in plain lines, what happens to its programs."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supervisor import events
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

from app.cli.supervision import CONFIGURATION_FAULT, Program, supervisor_config

_SPEAKER = "llm-api"
_LONGEST_WAIT_SECONDS = 30  # supervisord's back-off grows by a second per try and knows no end
_OPEN_FILES = 8192  # a waiting client is an open file; a login shell's limit is often 1,024


def supervise(programs: Sequence[Program]) -> None:
    """Runs `programs` until SIGINT or SIGTERM, then stops them in order; returns when none is left.

    Installs signal handlers, so it wants the main thread.
    """
    with tempfile.TemporaryDirectory(prefix="llm-api-") as folder:
        file = Path(folder) / "supervisord.conf"
        file.write_text(
            supervisor_config(
                programs,
                pid_file=Path(folder) / "supervisord.pid",
                min_open_files=_open_files(),
                as_root=os.getuid() == 0,
                launcher=_die_with_parent(),
            ),
            encoding="utf-8",
        )
        options = _Options()
        options.realize(["-c", str(file)], doc=__doc__)
        options.first, options.test = True, False
        with contextlib.suppress(ExitNow):
            _Console(options).main()


def _open_files() -> int:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)


def _die_with_parent() -> list[str]:
    """A killed supervisor must leave nobody behind; util-linux can arrange that, other systems do without."""
    setpriv = shutil.which("setpriv")
    launcher = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    usable = setpriv and subprocess.run([*launcher, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603
    return launcher if usable else []


class _Options(ServerOptions):  # type: ignore[misc]
    """Remembers how each child ended: supervisord itself writes that only into its log."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: dict[int, int] = {}

    def waitpid(self) -> tuple[int | None, int | None]:
        pid, status = super().waitpid()
        if pid:
            self.endings[pid] = status
        return pid, status


class _Console(Supervisor):  # type: ignore[misc]
    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self._unfinished_lines: dict[str, bytes] = {}

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogEvent, self._on_output)
        events.subscribe(events.ProcessStateBackoffEvent, self._on_death_while_starting)
        events.subscribe(events.ProcessStateExitedEvent, self._on_death)
        events.subscribe(events.ProcessStateStoppedEvent, self._on_stopped)
        events.subscribe(events.SupervisorStoppingEvent, self._on_stopping)
        super().runforever()

    def _on_output(self, event: Any) -> None:
        name = event.process.config.name
        output = self._unfinished_lines.pop(name, b"") + event.data.replace(b"\r", b"\n")
        *lines, rest = output.split(b"\n")
        for line in filter(bytes.strip, lines):
            _say(name, line.decode(errors="replace"))
        if rest:
            self._unfinished_lines[name] = rest

    def _on_death_while_starting(self, event: Any) -> None:
        process = event.process
        if self._is_beyond_cure(process):
            process.backoff = process.config.startretries + 1  # supervisord then gives it up
            return
        process.delay = min(process.delay, time.time() + _LONGEST_WAIT_SECONDS)
        wait_seconds = max(1, round(process.delay - time.time()))
        self._tell_death(process, f"starting it again in {wait_seconds} s")

    def _on_death(self, event: Any) -> None:
        process = event.process
        if process.config.autorestart and not self._is_beyond_cure(process):
            self._tell_death(process, "starting it again")

    def _is_beyond_cure(self, process: Any) -> bool:
        status = self.options.endings.get(process.pid)
        beyond = status is not None and os.waitstatus_to_exitcode(status) == CONFIGURATION_FAULT
        if beyond:
            self._tell_death(process, "a restart cannot cure that: fix what it said above, then run again")
        return beyond

    def _tell_death(self, process: Any, consequence: str) -> None:
        self._flush(process)
        status = self.options.endings.pop(process.pid, None)
        why = process.spawnerr if status is None else _ending(status)
        _say(_SPEAKER, f"{process.config.name} {why}; {consequence}")

    def _on_stopping(self, _event: Any) -> None:
        names = [group.config.name for group in sorted(self.process_groups.values(), reverse=True)]
        _say(_SPEAKER, f"stopping {', then '.join(name for name in names if name != _SPEAKER)}")

    def _on_stopped(self, event: Any) -> None:
        process = event.process
        self._flush(process)
        status = self.options.endings.pop(process.pid, 0)
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            _say(_SPEAKER, f"{process.config.name} did not stop within {process.config.stopwaitsecs} s and was killed")

    def _flush(self, process: Any) -> None:
        rest = self._unfinished_lines.pop(process.config.name, b"")
        if rest.strip():
            _say(process.config.name, rest.decode(errors="replace"))


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    names = {known.value: known.name for known in signal.Signals}  # real-time signals have none
    return f"was killed by {names.get(-code, f'signal {-code}')}"


def _say(speaker: str, line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that went away must not take the service with it
        sys.stdout.write(f"{speaker:>7} | {line}\n")
        sys.stdout.flush()
