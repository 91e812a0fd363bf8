"""A closed-loop load client: N clients, each sending its next request when the last is answered.

It speaks just enough HTTP/1.1 on asyncio's streams: on two cores the client's own cost is part of what it measures, and
a full client library costs as much as the service's whole Flask side.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Body = dict[str, Any]


@dataclass(slots=True)
class Result:
    """One load: wall-clock seconds, and what each request took and brought."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)  # seconds to the first event, streams only
    tokens: int = 0
    texts: dict[str, str] = field(default_factory=dict)  # by prompt, where the answer holds usage
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


class Connection:
    """One kept-alive connection to the service; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def request(self, method: str, path: str, body: Body | None = None) -> tuple[int, bytes]:
        """Status and body of an answer that has a length."""
        status, headers = await self._begin(method, path, body)
        return status, await self._reader.readexactly(int(headers.get(b"content-length", b"0")))

    async def stream(self, path: str, body: Body) -> AsyncIterator[bytes]:
        """The chunks of a streamed answer. Raises OSError where it is no stream."""
        status, headers = await self._begin("POST", path, body)
        if status != 200 or headers.get(b"transfer-encoding") != b"chunked":
            length = int(headers.get(b"content-length", b"0"))
            raise OSError(f"{status}: {(await self._reader.readexactly(length))[:200]!r}")
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()

    def close(self) -> None:
        self._writer.close()

    async def _begin(self, method: str, path: str, body: Body | None) -> tuple[int, dict[bytes, bytes]]:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        return int(status.split()[1]), headers


def run_load(
    url: str, bodies: Sequence[Body], clients: int, *, streamed: bool = False, path: str = "/generate"
) -> Result:
    """Send every body once, `clients` at a time: to `path`, which may be /v1/completions, or /agenerate as streams."""
    return asyncio.run(_run(url, bodies, clients, streamed, path))


async def _run(url: str, bodies: Sequence[Body], clients: int, streamed: bool, path: str) -> Result:
    result = Result()
    waiting: Iterator[Body] = iter(bodies)
    connections = [await Connection.open(url) for _ in range(clients)]

    async def client(connection: Connection) -> None:
        for body in waiting:
            started = time.perf_counter()
            if streamed:
                await _stream(connection, body, result, started)
            else:
                await _generate(connection, path, body, result)
            result.latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client(connection) for connection in connections))
    result.seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return result


async def _generate(connection: Connection, path: str, body: Body, result: Result) -> None:
    status, text = await connection.request("POST", path, body)
    if status != 200:
        result.errors.append(f"{status}: {text[:200]!r}")
    elif body.get("details") or path.startswith("/v1/"):
        answer = json.loads(text)
        result.tokens += answer["usage"]["completion_tokens"]
        result.texts[body["prompt"]] = answer["choices"][0]["text"] if "choices" in answer else answer["output"]["text"]


async def _stream(connection: Connection, body: Body, result: Result, started: float) -> None:
    first = True
    try:
        async for chunk in connection.stream("/agenerate", {**body, "stream": True}):
            if first and b"data:" in chunk:
                first = False
                result.first_tokens.append(time.perf_counter() - started)
    except OSError as error:
        result.errors.append(str(error))
