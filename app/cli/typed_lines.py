"""What a person types into a chat: lines with a history, and `/stop` while an answer is written."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

STOP = "/stop"
_HISTORY_LINES = 1000
_READ_BYTES = 4096


class TypedLines:
    """Reads lines from stdin: with editing and a history from a terminal, as they are from a pipe."""

    def __init__(self, history: Path | None) -> None:
        """history: where lines are kept from one chat to the next, for this user only; None: nowhere."""
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._ahead: deque[str] = deque()  # typed while an answer was written
        if self._is_terminal:
            _remember_in(history)

    def read(self, prompt: str) -> str:
        """Return the next line. Raises EOFError at the end, and KeyboardInterrupt after Ctrl-C."""
        if self._ahead:
            return self._ahead.popleft()
        return input(prompt if self._is_terminal else "")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Take the line `/stop` for Ctrl-C meanwhile, which is raised as KeyboardInterrupt; other lines are read next.

        From a pipe nothing is read: its lines are the questions to come.
        """
        if not self._is_terminal:
            yield
            return
        end_reader, end_writer = os.pipe()
        watcher = threading.Thread(target=self._watch, args=(end_reader,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            os.close(end_writer)
            watcher.join()
            os.close(end_reader)

    def _watch(self, end: int) -> None:
        """Read lines until `end` is closed. A terminal gives whole lines."""
        while True:
            readable, _, _ = select.select([sys.stdin, end], [], [])
            if end in readable:
                return
            line = os.read(sys.stdin.fileno(), _READ_BYTES)
            if not line:  # Ctrl-D: the next `read` finds it
                return
            if (text := line.decode(errors="replace").strip()) == STOP:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            if text:
                self._ahead.append(text)


def history_file() -> Path:
    """Return where the history of chats is by the XDG specification."""
    folder = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(folder) / "llm-api" / "chat_history"


def _remember_in(history: Path | None) -> None:
    """Have `input` edit lines, with the lines of earlier chats to go back to."""
    import atexit
    import readline

    readline.set_history_length(_HISTORY_LINES)
    if history is None:
        return
    with contextlib.suppress(OSError):  # a chat works without a history
        history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        history.touch(mode=0o600)
        readline.read_history_file(history)
        atexit.register(_write_history, history)


def _write_history(history: Path) -> None:
    import readline

    with contextlib.suppress(OSError):
        readline.write_history_file(history)
