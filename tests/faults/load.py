"""A load of many clients with one job each. A client repeats a request that is refused or whose connection breaks."""

import itertools
import threading
import time
from collections.abc import Sequence
from types import TracebackType

import httpx

from tests.faults.client import ClientRequest, ClientView, JobVanished, TryAgain, Way, ask, counting
from tests.faults.waiting import until
from tests.waiting import scaled

PATIENCE_SECONDS = 120.0  # a client gives up its job after that time
AGAIN_SECONDS = 0.3
ANSWER_SECONDS = 90.0  # a /generate receives nothing until the end of its job
TOKENS = (40, 80)  # at the engine's 20 ms a step a second or two, of which 16 tokens are a suspect's trial


def mixed(count: int, *, tokens: tuple[int, int] = TOKENS, name: str = "job") -> list[ClientRequest]:
    """Make requests for the counting engine, of several lengths, equally many for each way of waiting."""
    shortest, longest = tokens
    return [
        counting(f"{name} {number}", shortest + number * 7 % (longest - shortest + 1), way)
        for number, way in zip(range(count), itertools.cycle(Way), strict=False)
    ]


class Load:
    """Clients in threads. They send their requests inside the `with` block, which ends when all have finished.

    A client has finished when it has received the end of its job, or has given up.

    over_seconds: the time over which they arrive. With several urls, a client turns to the next one when a connection
    breaks, but every third client waits until its own url answers again.
    """

    def __init__(self, urls: Sequence[str], requests: Sequence[ClientRequest], *, over_seconds: float = 6.0) -> None:
        self.views = [ClientView(request) for request in requests]
        self._urls = urls
        self._over_seconds = over_seconds
        self._http = httpx.Client(
            timeout=httpx.Timeout(scaled(ANSWER_SECONDS), connect=scaled(10)),
            limits=httpx.Limits(max_connections=None),
            verify=False,
        )
        self._threads = [
            threading.Thread(target=self._persist, args=(number, view), daemon=True)
            for number, view in enumerate(self.views)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        else:
            error.add_note(f"what clients received: {[view.defects for view in self.views if view.defects][:3]}")
        self._http.close()

    def wait(self) -> None:
        """Wait until every client has received the end of its job, or has lost patience."""
        for thread in self._threads:
            thread.join()

    def until_streaming(self, count: int) -> None:
        """Wait until so many streams have received text and have not ended."""
        until(lambda: self._streaming() >= count, f"{count} streams in the middle of their text")

    def _streaming(self) -> int:
        return sum(bool(view.request.way.streams and view.text and not view.ends) for view in self.views)

    def _persist(self, number: int, view: ClientView) -> None:
        time.sleep(self._over_seconds * number / len(self.views))
        view.patience_ends_at = time.monotonic() + scaled(PATIENCE_SECONDS)
        while not view.ends and view.is_patient:
            try:
                ask(self._http, self._url(number, view), view)
            except TryAgain:
                view.refusals += 1
            except httpx.TransportError:
                view.breaks += 1
            except JobVanished as error:
                view.defects.append(f"{error} vanished")
                return
            except Exception as error:
                view.defects.append(f"{type(error).__name__}: {error}")
                return
            if not view.ends:
                time.sleep(AGAIN_SECONDS)

    def _url(self, number: int, view: ClientView) -> str:
        turns = 0 if number % 3 == 0 else view.breaks + view.refusals
        return self._urls[(number + turns) % len(self._urls)]
