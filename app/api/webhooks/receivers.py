"""How the receivers do, as this process knows them: one that does not answer must not keep the others waiting."""

import random
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

SENDERS_PER_RECEIVER = 4
FULL_PAUSE_SECONDS = 1.0  # until a webhook of a receiver that is being sent to enough is looked at again
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0
MOST_KNOWN = 10_000


@dataclass(slots=True)
class _Receiver:
    in_flight: int = 0
    silences: int = 0  # in a row
    wakes_at: float = 0.0


class Receivers:
    """A receiver is a scheme, a host and a port."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, _Receiver] = {}

    def enter(self, url: str) -> float:
        """0: send now, and call `leave` then. Else: so many seconds later."""
        with self._lock:
            receiver = self._receiver(url)
            left = receiver.wakes_at - time.monotonic()
            if left > 0:
                return left * random.uniform(1.0, 1.5)
            if receiver.in_flight >= (1 if receiver.silences else SENDERS_PER_RECEIVER):
                return FULL_PAUSE_SECONDS * random.uniform(1.0, 2.0)
            receiver.in_flight += 1
            return 0.0

    def leave(self, url: str, *, answered: bool) -> None:
        with self._lock:
            receiver = self._receiver(url)
            receiver.in_flight -= 1
            receiver.silences = 0 if answered else receiver.silences + 1
            if not answered:
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (receiver.silences - 1))
                receiver.wakes_at = time.monotonic() + pause * random.uniform(0.5, 1.0)
            elif not receiver.in_flight:
                del self._known[_name(url)]

    def _receiver(self, url: str) -> _Receiver:
        name = _name(url)
        if name not in self._known and len(self._known) >= MOST_KNOWN:
            self._forget_idle()
        return self._known.setdefault(name, _Receiver())

    def _forget_idle(self) -> None:
        self._known = {name: one for name, one in self._known.items() if one.in_flight}


def _name(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
