"""The client that must not notice anything: it asks at a steady rate, and measures."""

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.abuse.service import HEALTHY_KEY
from tests.bench.load import percentile

EVERY_SECONDS = 0.2
_BODY = {"prompt": "Once upon a time", "params": {"max_tokens": 4, "temperature": 0, "ignore_eos": True}}
_TIMEOUT_SECONDS = 60


@dataclass(slots=True)
class Latencies:
    """Seconds of each request that was answered, and how many were not, by reason."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def p50(self) -> float:
        return percentile(self.seconds, 0.5)

    @property
    def p99(self) -> float:
        return percentile(self.seconds, 0.99)


class HealthyClient:
    """Asks for four tokens, and whether the API lives: each every `EVERY_SECONDS`, or when the last is answered."""

    def __init__(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {HEALTHY_KEY}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS)
        self._latencies = Latencies()
        self._stopped = threading.Event()
        self._asking = {path: threading.Lock() for path in ("/generate", "/healthz")}
        self._threads = [threading.Thread(target=self._run, args=[path], name=path) for path in self._asking]

    def __enter__(self) -> "HealthyClient":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._http.close()

    def measured(self) -> Latencies:
        """Return what was measured since the last call. Waits for the requests that are not answered yet."""
        with contextlib.ExitStack() as stack:
            for lock in self._asking.values():
                stack.enter_context(lock)
            latencies, self._latencies = self._latencies, Latencies()
        return latencies

    def _run(self, path: str) -> None:
        next_at = time.monotonic()
        while not self._stopped.wait(max(0.0, next_at - time.monotonic())):
            next_at = time.monotonic() + EVERY_SECONDS
            with self._asking[path]:
                self._ask(path)

    def _ask(self, path: str) -> None:
        started = time.monotonic()
        try:
            answer = self._http.post(path, json=_BODY) if path == "/generate" else self._http.get(path)
            problem = "" if answer.status_code == 200 else f"{path} {answer.status_code}"
        except httpx.HTTPError as error:
            problem = f"{path} {type(error).__name__}"
        if problem:
            self._latencies.failures[problem] += 1
        elif path == "/generate":
            self._latencies.seconds.append(time.monotonic() - started)
