"""Child processes that run what cannot be trusted to end: each can be ended when it takes too much time or memory.

They are kept, so that a use costs one exchange of messages and no start of a process. One is enough until it is used
twice at once; what was started beyond it ends when it has not been needed for a while.

The first runs at the niceness of its parent: a chat is rendered in a millisecond, and should not wait for the model's
threads. What takes longer continues at theirs, or one client that sends nothing else would take the CPUs from them. A
niceness cannot be lowered again, so another process takes the place of that one when there is little to do.
"""

import contextlib
import json
import logging
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import workers
from workers.engines.shared.child_program import LENGTH_BYTES, MAX_REPLY_BYTES, Limits

logger = logging.getLogger(__name__)

MAX_PROCESSES = 4  # as many as prepare jobs at once
NICENESS = 15  # more than the parent's
HASTE_SECONDS = 0.05  # for one message, before the process gets this niceness
SPARE_SECONDS = 10.0  # a process beyond the first ends when no use had to wait in this time
PATIENCE_SECONDS = 0.05  # to wait for another use to end before another process is started, which takes 0.2 s
_ROOT = str(Path(workers.__file__).parent.parent)
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONHOME", "LD_LIBRARY_PATH")  # no keys or passwords


class ChildFailed(Exception):
    """The program rejects a message, or fails at it; the text may be shown."""


class ChildLimit(ChildFailed):
    """It takes more time or memory than is allowed."""


class ChildProcess:
    """One process, which runs a module. One thread at a time may use it.

    Args:
        module: its name; it ends in `child_program.serve`.
        setup: the first message; `setup_reply` is the reply to it.

    is_nice: it has a higher niceness than its parent.

    Raises:
        ChildFailed: the setup failed.
    """

    def __init__(self, module: str, limits: Limits, setup: Mapping[str, Any]) -> None:
        self._limits = limits
        self.is_nice = limits.niceness > 0
        ours, theirs = socket.socketpair()
        inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", module, limits.to_argument()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=inherited | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
                process_group=0,  # Ctrl+C is for the worker, which ends it; a session would have CPU shares of its own
            )
        self._channel = ours
        try:
            self.setup_reply = self._exchange(setup, limits.wait_seconds)
        except BaseException:
            self.close()
            raise

    def call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ChildFailed, RecursionError (the message nests too deep). After ChildLimit the process has ended."""
        return self._exchange(message, HASTE_SECONDS)

    def _exchange(self, message: Mapping[str, Any], haste_seconds: float) -> dict[str, Any]:
        data = json.dumps(message).encode()
        deadline = time.monotonic() + self._limits.wait_seconds
        try:
            self._send(data, deadline)
            if not self.is_nice and not self._replies_within(haste_seconds):
                self._become_nice()
            size = int.from_bytes(self._receive(LENGTH_BYTES, deadline), "big")
            if size > MAX_REPLY_BYTES:  # only a program that was taken over sends it
                raise self._memory_limit()
            reply: dict[str, Any] = json.loads(self._receive(size, deadline))
            if reply.get("out_of_memory"):
                raise self._memory_limit()
        except ChildLimit:
            self.close()
            raise
        if "failed" in reply:
            raise ChildFailed(str(reply["failed"]))
        return reply

    def close(self) -> None:
        """End the process, whatever it does."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _replies_within(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def _become_nice(self) -> None:
        """Raise the niceness of its main thread, which works unless its limits have a niceness."""
        self.is_nice = True
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    def _send(self, data: bytes, deadline: float) -> None:
        self._set_time_left(deadline)
        try:
            self._channel.sendall(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        except OSError as error:
            raise self._limit(error) from None

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._set_time_left(deadline)
            try:
                part = self._channel.recv(min(size - len(data), 1 << 20))
            except OSError as error:
                raise self._limit(error) from None
            if not part:
                raise self._limit(None)
            data += part
        return bytes(data)

    def _set_time_left(self, deadline: float) -> None:
        self._channel.settimeout(max(0.001, deadline - time.monotonic()))

    def _limit(self, error: OSError | None) -> ChildLimit:
        """Return why the process has ended, or must end."""
        if isinstance(error, TimeoutError):
            return ChildLimit(f"it took longer than {self._limits.wait_seconds:g} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.wait(timeout=1) == -signal.SIGPROF:
                return ChildLimit(f"it took more than {self._limits.cpu_seconds:g} s of a CPU")
        return ChildLimit("it ends the process that works on it, for a lack of memory perhaps")

    def _memory_limit(self) -> ChildLimit:
        return ChildLimit(f"it needs more than {self._limits.memory_bytes // 1024**2} MB of memory")


class ChildProcesses:
    """Up to `most` processes that are set up alike. Any thread may use them.

    Raises ChildFailed: the setup failed.
    """

    def __init__(self, module: str, limits: Limits, setup: Mapping[str, Any], *, most: int = MAX_PROCESSES) -> None:
        self._module, self._limits, self._setup, self._most = module, limits, dict(setup), most
        self._idle: queue.LifoQueue[ChildProcess] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._count = 1  # idle, busy and starting ones
        self._all_busy_at = 0.0  # when a use last found no idle one, on the monotonic clock
        self._is_watched = False
        self._all: set[ChildProcess] = set()
        self._finalizer = weakref.finalize(self, _close_all, self._all)
        self._nice_limits = replace(limits, niceness=limits.niceness or NICENESS)
        first = self._started(limits)
        self.setup_reply = first.setup_reply
        self._idle.put(first)

    def call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """As `ChildProcess.call`."""
        process = self._taken()
        try:
            reply = process.call(message)
        except ChildLimit:
            self._all.discard(process)
            self._begin_to_replace(self._nice_limits)
            raise
        except BaseException:
            self._give_back(process)
            raise
        self._give_back(process)
        return reply

    def close(self) -> None:
        self._finalizer()

    def _give_back(self, process: ChildProcess) -> None:
        self._idle.put(process)
        with self._lock:
            if not self._is_watched and not self._is_as_at_first():
                self._is_watched = True
                threading.Thread(target=self._watch, name="spare-processes", daemon=True).start()

    def _is_as_at_first(self) -> bool:
        return self._count == 1 and all(process.is_nice == (self._limits.niceness > 0) for process in self._all)

    def _watch(self) -> None:
        """While no use has to wait, end spare processes and replace a nice one, until all is as at first."""
        while True:
            time.sleep(SPARE_SECONDS)
            with self._lock:
                if not self._finalizer.alive:
                    return
                if time.monotonic() - self._all_busy_at <= SPARE_SECONDS:
                    continue
                if self._is_as_at_first():
                    self._is_watched = False
                    return
                if self._count > 1:
                    self._end_one()
                    continue
                self._count += 1
            self._replace(self._limits)

    def _end_one(self) -> None:
        """End an idle process, a nice one if there is one."""
        idle: list[ChildProcess] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        idle.sort(key=lambda process: process.is_nice)
        if idle:
            self._count -= 1
            process = idle.pop()
            self._all.discard(process)
            process.close()
        for process in idle:
            self._idle.put(process)

    def _begin_to_replace(self, limits: Limits) -> None:
        """Start another process in the place of one that has ended; no use waits for it."""
        threading.Thread(target=self._replace, args=[limits], name="child-process", daemon=True).start()

    def _replace(self, limits: Limits) -> None:
        try:
            self._idle.put(self._started(limits))
        except Exception:  # the machine is short of something: the next use tries again
            logger.exception("no process to take the place of one that has ended")
            with self._lock:
                self._count -= 1

    def _taken(self) -> ChildProcess:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        self._all_busy_at = time.monotonic()
        with contextlib.suppress(queue.Empty):
            return self._idle.get(timeout=PATIENCE_SECONDS)
        with self._lock:
            may_start = self._count < self._most
            self._count += may_start
        if not may_start:
            return self._idle.get()
        return self._started(self._nice_limits)

    def _started(self, limits: Limits) -> ChildProcess:
        process = ChildProcess(self._module, limits, self._setup)
        self._all.add(process)
        if not self._finalizer.alive:
            process.close()
        return process


def _close_all(processes: set[ChildProcess]) -> None:
    for process in list(processes):
        process.close()
