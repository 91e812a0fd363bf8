"""The time that the path to the client adds to the first token of a streamed chat: its clock against the job's metric.

`metrics.time_to_first_token_seconds` counts from the job's creation in Redis until the worker has the token. The
rest of the time at the client is the path there, up to that creation, and the path back, from the worker's batch loop.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.bench.load import Connection, percentile

STREAMS = 8
CHATS = 64  # of a round
TOKENS = range(32, 65)  # of several lengths, so that one chat begins while the others run


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Seconds until a client had the first text, and the id of its job."""

    job_id: str
    seconds: float


def measure(url: str, rounds: int) -> None:
    """Print the first token's time at the client and in the worker, and what lies between them."""
    asyncio.run(_round(url, -1))  # warm
    seen, added, waited = [], [], []
    for number in range(rounds):
        timings = asyncio.run(_round(url, number))
        seen.append(_median_ms([client for client, _, _ in timings]))
        added.append(_median_ms([client - own for client, own, _ in timings]))
        waited.append(_median_ms([queue for _, _, queue in timings]))
    print(f"\nfirst token of a chat, {STREAMS} streams open, p50 of {CHATS}, ms, median of {rounds} rounds [min-max]")
    for title, values in (
        ("at the client", seen),
        ("more than the job's own", added),
        ("of the job's own, in the queue", waited),
    ):
        print(f"  {title:30} {statistics.median(values):7.2f} [{min(values):.2f}-{max(values):.2f}]")


async def _round(url: str, number: int) -> list[tuple[float, float, float]]:
    """Return for each chat the seconds at the client, of the job's own metric, and of its share in the queue."""
    waiting: Iterator[int] = iter(range(CHATS))
    first_tokens: list[FirstToken] = []

    async def client(connection: Connection) -> None:
        for chat in waiting:
            first_tokens.append(
                await _chat(connection, f"Chat {number} {chat}: tell me about it.", TOKENS[chat * 7 % len(TOKENS)])
            )

    connections = [await Connection.open(url) for _ in range(STREAMS)]
    await asyncio.gather(*(client(connection) for connection in connections))
    timings = [(one.seconds, *(await _metrics(connections[0], one.job_id))) for one in first_tokens]
    for connection in connections:
        connection.close()
    return timings


async def _chat(connection: Connection, question: str, tokens: int) -> FirstToken:
    body = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": tokens}
    body |= {"temperature": 0, "ignore_eos": True}
    started, first = time.perf_counter(), None
    async for chunk in connection.stream("/v1/chat/completions", body):
        if first is None and (job_id := _job_with_text(chunk)):
            first = FirstToken(job_id, time.perf_counter() - started)
    assert first is not None, "a stream without text"
    return first


def _job_with_text(chunk: bytes) -> str | None:
    for line in chunk.splitlines():
        if line.startswith(b"data: {"):
            event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                return str(event["id"]).removeprefix("chatcmpl-")
    return None


async def _metrics(connection: Connection, job_id: str) -> tuple[float, float]:
    status, answer = await connection.request("GET", f"/jobs/{job_id}")
    assert status == 200, answer
    metrics = json.loads(answer)["metrics"]
    return metrics["time_to_first_token_seconds"], metrics["queue_seconds"]


def _median_ms(seconds: list[float]) -> float:
    return percentile(seconds, 0.5) * 1e3
