"""One job's answer: asked for, asked for again where it broke off, and told piece by piece.

Two answers are never mixed. Behind text that has been told a completion goes on as another prompt; any other answer
must begin with the very same text when it is asked for again, or the job fails
(docs/decisions/0020-a-family-that-forwards.md).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai

from app.errors import UpstreamFailed
from app.jobs.job import FinishReason, Usage
from workers.engines.base import Sampled, Tell
from workers.engines.remote.attempts import Attempts
from workers.engines.remote.failures import BrokenAnswer
from workers.engines.remote.reading import AnswerReader
from workers.engines.remote.requests import Body, UpstreamRequest

_NO_TOKEN = 0
_ARGUMENTS = ("model", "prompt", "messages", "stream")  # that the package wants as such
_CUT = (
    "the upstream server's answer broke off; what came of it stays, and another answer would not go on where it ended "
    "(at temperature 0 or with a seed it may, and a completion does)"
)


class Answering:
    """One job's; `so_far` has been published by an earlier attempt, in so many pieces."""

    def __init__(self, client: openai.AsyncOpenAI, request: UpstreamRequest, tell: Tell, attempts: Attempts) -> None:
        self._client = client
        self._request = request
        self._tell = tell
        self._attempts = attempts
        self._text = ""
        self._pieces = 0

    async def run(self, so_far: str, pieces: int) -> None:
        """To the end, which is told like all else."""
        self._text, self._pieces = so_far, pieces
        try:
            await self._attempts.until_success(self._attempt)
        except Exception as error:
            self._tell([Sampled(token=_NO_TOKEN, piece=b"", error=error)])

    async def _attempt(self) -> None:
        request, told, pieces = self._request, self._text, self._pieces
        if told and request.may_be_continued:
            body = request.behind(told, pieces)
            if body is None:
                self._end(FinishReason.LENGTH, None)
            else:
                await self._read(body, repeated="", earlier_pieces=pieces)
        elif told and not request.is_repeatable:
            raise UpstreamFailed(_CUT)
        else:
            await self._read(request.body, repeated=told, earlier_pieces=0)

    async def _read(self, body: Body, *, repeated: str, earlier_pieces: int) -> None:
        reader = AnswerReader(is_chat=self._request.is_chat, names_function=self._request.names_function)
        beginning = _Beginning(repeated)
        try:
            async with await self._open(body) as stream:
                async for chunk in stream:
                    self._hear(beginning.skip(reader.read(chunk)))
        except json.JSONDecodeError:
            raise BrokenAnswer("a chunk is no JSON") from None
        except openai.APIError:
            if reader.last is None:
                raise
        if reader.last is None:
            raise BrokenAnswer("the stream has no end")
        beginning.check_passed()
        self._end(reader.last, _together(reader.usage, earlier_pieces))

    async def _open(self, body: Body) -> openai.AsyncStream[Any]:
        api: Any = self._client.chat.completions if self._request.is_chat else self._client.completions
        arguments = {name: body[name] for name in _ARGUMENTS if name in body}
        more = {name: value for name, value in body.items() if name not in arguments}
        stream: openai.AsyncStream[Any] = await api.create(**arguments, extra_body=more)
        return stream

    def _hear(self, sampled: list[Sampled]) -> None:
        if sampled:
            self._text += b"".join(one.piece for one in sampled).decode()
            self._pieces += len(sampled)
            self._attempts.failures = 0
            self._tell(sampled)

    def _end(self, last: FinishReason, usage: Usage | None) -> None:
        self._tell([Sampled(token=_NO_TOKEN, piece=b"", ends=True, last=last, usage=usage)])


class _Beginning:
    """What an answer that is asked for again must begin with, and what has been told already."""

    def __init__(self, text: str) -> None:
        self._left = text

    def skip(self, sampled: Sequence[Sampled]) -> list[Sampled]:
        """What goes beyond it. Raises UpstreamFailed where the answer is another."""
        return [left for one in sampled if (left := self._beyond(one)) is not None]

    def check_passed(self) -> None:
        if self._left:
            raise UpstreamFailed(_CUT)

    def _beyond(self, sampled: Sampled) -> Sampled | None:
        if not self._left:
            return sampled
        piece = sampled.piece.decode()
        if self._left.startswith(piece):
            self._left = self._left[len(piece) :]
            return None
        if not piece.startswith(self._left):
            raise UpstreamFailed(_CUT)
        beyond, self._left = piece[len(self._left) :], ""
        return replace(sampled, piece=beyond.encode())


def _together(usage: Usage | None, earlier_pieces: int) -> Usage | None:
    """With what came before, which the upstream server has counted as prompt; a piece counts as a token."""
    if usage is None or not earlier_pieces:
        return usage
    prompt = max(0, usage.prompt_tokens - earlier_pieces)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=usage.completion_tokens + earlier_pieces,
        cached_tokens=min(usage.cached_tokens, prompt),
    )
