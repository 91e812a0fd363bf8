"""A closed-loop load client: N clients, each sending its next request when the last is answered."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Body = dict[str, Any]


@dataclass(slots=True)
class Result:
    """One load: wall-clock seconds, and what each request took and brought."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)  # seconds to the first event, streams only
    tokens: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def requests_per_second(self) -> float:
        return len(self.latencies) / self.seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie; nan for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def run_load(url: str, bodies: Sequence[Body], clients: int, *, streamed: bool = False) -> Result:
    """Send every body once, `clients` at a time."""
    return asyncio.run(_run(url, bodies, clients, streamed=streamed))


async def _run(url: str, bodies: Sequence[Body], clients: int, *, streamed: bool) -> Result:
    result = Result()
    waiting: Iterator[Body] = iter(bodies)
    send: Callable[..., Any] = _stream if streamed else _generate
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def client() -> None:
            for body in waiting:
                started = time.perf_counter()
                await send(session, url, body, result, started)
                result.latencies.append(time.perf_counter() - started)

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        result.seconds = time.perf_counter() - started
    return result


async def _generate(session: aiohttp.ClientSession, url: str, body: Body, result: Result, started: float) -> None:
    async with session.post(f"{url}/generate", json={**body, "details": True}) as response:
        text = await response.text()
        if response.status == 200:
            result.tokens += json.loads(text)["usage"]["completion_tokens"]
        else:
            result.errors.append(f"{response.status}: {text[:200]}")


async def _stream(session: aiohttp.ClientSession, url: str, body: Body, result: Result, started: float) -> None:
    async with session.post(f"{url}/agenerate", json={**body, "stream": True}) as response:
        first = True
        async for line in response.content:
            if line.startswith(b"data:"):
                result.tokens += 1
                if first:
                    first = False
                    result.first_tokens.append(time.perf_counter() - started)
        if response.status != 200:
            result.errors.append(str(response.status))
