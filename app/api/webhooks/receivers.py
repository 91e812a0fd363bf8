"""How the receivers respond, as this process sees it: one that does not respond must not delay the others."""

import random
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

SENDERS_PER_RECEIVER = 4
BUSY_PAUSE_SECONDS = 1.0  # until the next look at a webhook whose receiver has enough senders
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0  # after attempts without a response
MAX_KNOWN = 10_000


@dataclass(slots=True)
class _Receiver:
    in_flight: int = 0
    silent_attempts: int = 0  # attempts in a row
    pause_end: float = 0.0


class Receivers:
    """The receivers of webhooks, by scheme, host and port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Receiver] = {}

    def enter(self, url: str) -> float:
        """Return 0 if a webhook may be sent now, with a call of `leave` after it; else the seconds to wait."""
        with self._lock:
            receiver = self._receiver(url)
            left = receiver.pause_end - time.monotonic()
            if left > 0:
                return left * random.uniform(1.0, 1.5)
            if receiver.in_flight >= (1 if receiver.silent_attempts else SENDERS_PER_RECEIVER):
                return BUSY_PAUSE_SECONDS * random.uniform(1.0, 2.0)
            receiver.in_flight += 1
            return 0.0

    def leave(self, url: str, *, has_responded: bool) -> None:
        with self._lock:
            receiver = self._receiver(url)
            receiver.in_flight -= 1
            receiver.silent_attempts = 0 if has_responded else receiver.silent_attempts + 1
            if not has_responded:
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (receiver.silent_attempts - 1))
                receiver.pause_end = time.monotonic() + pause * random.uniform(0.5, 1.0)
            elif not receiver.in_flight:
                del self._known[_name(url)]

    def _receiver(self, url: str) -> _Receiver:
        name = _name(url)
        if name not in self._known and len(self._known) >= MAX_KNOWN:
            self._known = {known: receiver for known, receiver in self._known.items() if receiver.in_flight}
        return self._known.setdefault(name, _Receiver())


def _name(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
