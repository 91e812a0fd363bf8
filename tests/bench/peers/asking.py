"""One round against one contender: send the requests, collect answers and times. All contenders have one client."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.load import Connection, percentile
from tests.bench.peers.contenders import CHAT_PATH, Contender, Messages
from tests.bench.peers.works import Request, Way, Work


@dataclass(slots=True)
class Round:
    """texts: by request. conversations: the messages sent, by turn of a chat.

    first_tokens, gaps: of streams, seconds; tokens that come together have no gap between them.
    """

    seconds: float = 0.0
    new_tokens: int = 0
    texts: list[str] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    conversations: list[Messages] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.new_tokens / self.seconds

    @property
    def first_token_p50(self) -> float:
        return percentile(self.first_tokens, 0.5)

    @property
    def gap_p99(self) -> float:
        return percentile(self.gaps, 0.99)


def ask(contender: Contender, work: Work, requests: list[Request]) -> Round:
    """Send the requests of one round. Raises OSError when an answer is an error."""
    return asyncio.run(_WAYS[work.way](contender, requests, work.clients))


async def _at_once(contender: Contender, requests: list[Request], clients: int) -> Round:
    bodies = [contender.body(request.prompt, request.new_tokens) for request in requests]
    raw: list[bytes] = [b""] * len(bodies)
    waiting = iter(range(len(bodies)))

    async def client(connection: Connection) -> None:
        for number in waiting:
            status, raw[number] = await connection.request("POST", contender.completion_path, bodies[number])
            if status != 200:
                raise OSError(f"{contender.name} answers {status}: {raw[number][:300]!r}")

    connections = [await Connection.open(contender.url) for _ in range(clients)]
    started = time.perf_counter()
    await asyncio.gather(*(client(connection) for connection in connections))
    result = Round(seconds=time.perf_counter() - started)
    _close(connections)
    for answer in map(contender.read, raw):
        result.texts.append(answer.text)
        result.prompt_tokens.append(answer.prompt_tokens)
        result.new_tokens += answer.new_tokens
    return result


async def _streamed(contender: Contender, requests: list[Request], clients: int) -> Round:
    bodies = [{**contender.body(request.prompt, request.new_tokens), "stream": True} for request in requests]
    for body in bodies:
        body.pop("response_fields", None)
    chunks: list[list[tuple[float, bytes]]] = [[] for _ in bodies]
    waiting = iter(range(len(bodies)))

    async def client() -> None:
        for number in waiting:
            mine = chunks[number]
            mine.append((time.perf_counter(), b""))
            connection = await Connection.open(contender.url)  # not every server keeps a connection after a stream
            async for chunk in connection.stream(contender.stream_path, bodies[number]):
                mine.append((time.perf_counter(), chunk))
            connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    result = Round(seconds=time.perf_counter() - started, new_tokens=sum(request.new_tokens for request in requests))
    for stream in chunks:
        _read_stream(contender, stream, result)
    return result


def _read_stream(contender: Contender, chunks: list[tuple[float, bytes]], result: Round) -> None:
    sent_at, last, text = chunks[0][0], None, ""
    for arrived_at, chunk in chunks[1:]:
        for data in _events(chunk):
            delta = contender.delta(data)
            text += delta
            if not delta:
                continue
            if last is None:
                result.first_tokens.append(arrived_at - sent_at)
            else:
                result.gaps.append(arrived_at - last)
            last = arrived_at
    result.texts.append(text)


def _events(chunk: bytes) -> Iterator[str]:
    """The data of each server-sent event; none of these servers cuts an event in two."""
    for event in chunk.decode().split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
        if lines and lines != ["[DONE]"]:
            yield "\n".join(lines)


async def _chat(contender: Contender, requests: list[Request], clients: int) -> Round:
    assert clients == 1
    result = Round()
    messages: Messages = []
    connection = await Connection.open(contender.url)
    started = time.perf_counter()
    for request in requests:
        messages.append({"role": "user", "content": request.prompt})
        body = contender.chat_body(messages, request.new_tokens)
        status, raw = await connection.request("POST", CHAT_PATH, body)
        if status != 200:
            raise OSError(f"{contender.name} answers {status}: {raw[:300]!r}")
        answer = json.loads(raw)
        text = answer["choices"][0]["message"]["content"]
        result.conversations.append(list(messages))
        messages.append({"role": "assistant", "content": text})
        result.texts.append(text)
        result.prompt_tokens.append(answer["usage"]["prompt_tokens"])
        result.new_tokens += answer["usage"]["completion_tokens"]
    result.seconds = time.perf_counter() - started
    _close([connection])
    return result


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


_WAYS = {Way.AT_ONCE: _at_once, Way.STREAMED: _streamed, Way.CHAT: _chat}
