"""One job forwarded to the upstream server: requests the response, repeats a request that broke off, and reports the
output piece by piece.

The texts of two responses are never mixed. A completion of which text has been published continues as another prompt.
Any other repeated response must begin with exactly the published text, or the job fails
(docs/decisions/0020-a-family-that-forwards.md).
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai

from app.errors import LLMAPIError, UpstreamFailed
from app.jobs.events import Delta
from app.jobs.job import FinishReason, Status, Usage
from workers.engines.remote.attempts import Attempts
from workers.engines.remote.failures import BrokenResponse
from workers.engines.remote.requests import Body, UpstreamRequest
from workers.engines.remote.stream_reader import StreamReader
from workers.engines.remote.upstream import Upstream
from workers.engines.runner import Outcome, Report, Run, RunnerHost, RunnerJob

_ARGUMENTS = ("model", "prompt", "messages", "stream")  # required as such by the package openai
_CUT = (
    "the upstream server's response broke off; its text so far stays, and another response would not continue where it "
    "ended (at temperature 0 or with a seed it may, and a completion does)"
)

logger = logging.getLogger(__name__)


class ForwardedRun(Run):
    """Continues after what an earlier attempt has published. Runs in the event loop of `upstream`."""

    def __init__(self, job: RunnerJob, request: UpstreamRequest, upstream: Upstream, host: RunnerHost) -> None:
        super().__init__(job)
        self._request = request
        self._client = upstream.client
        self._attempts = Attempts(upstream.gate, self.seconds_left)
        self._host = host
        self._text = "" if job.published is None else job.published.text
        self._resumed_pieces = self._pieces = 0 if job.published is None else len(job.published.tokens)
        self._usage: Usage | None = None
        self._timer: asyncio.Timeout | None = None

    @property
    def usage(self) -> Usage:
        """What the upstream server has counted; else the number of pieces received, each a token or more."""
        return self._usage or Usage(completion_tokens=self._pieces)

    @property
    def new_tokens(self) -> int:
        return self._pieces - self._resumed_pieces

    async def run(self) -> None:
        """Run to the end and report the outcome."""
        try:
            async with asyncio.timeout(0.0 if self.job.cancel_requested else self.seconds_left) as self._timer:
                reason = await self._attempts.until_success(self._attempt)
        except Exception as error:
            outcome = self._failure(error)
        else:
            self.note_token()
            outcome = self.end(Status.SUCCEEDED, reason)
        self._host.report([Report(self.job, None, outcome)])

    def interrupt(self) -> None:
        """End the run because its job was canceled; closes the connection."""
        if self._timer is not None and self.outcome is None and not self._timer.expired():
            self._timer.reschedule(asyncio.get_running_loop().time())

    def _failure(self, error: Exception) -> Outcome:
        if self._timer is not None and self._timer.expired():
            return self.end_canceled() if self.job.cancel_requested else self.end_timed_out()
        if not isinstance(error, LLMAPIError):
            logger.error("forwarding job %s failed", self.job.id, exc_info=error)
        return self.end_failed(error)

    async def _attempt(self) -> FinishReason:
        request, text, pieces = self._request, self._text, self._pieces
        if text and request.may_be_continued:
            body = request.continued_after(text, pieces)
            if body is None:
                return FinishReason.LENGTH
            return await self._read(body, repeated="", earlier_pieces=pieces)
        if text and not request.is_repeatable:
            raise UpstreamFailed(_CUT)
        return await self._read(request.body, repeated=text, earlier_pieces=0)

    async def _read(self, body: Body, *, repeated: str, earlier_pieces: int) -> FinishReason:
        reader = StreamReader(is_chat=self._request.is_chat)
        beginning = _Beginning(repeated)
        try:
            async with await self._open(body) as stream:
                async for chunk in stream:
                    self._take(beginning.skip(reader.read(chunk)))
        except json.JSONDecodeError:
            raise BrokenResponse("a chunk is not JSON") from None
        except openai.APIError:
            if reader.finish_reason is None:
                raise
        if reader.finish_reason is None:
            raise BrokenResponse("the stream has no end")
        beginning.check_passed()
        usage = _with_earlier(reader.usage, earlier_pieces)
        self._usage = usage if usage is None or self._request.shows_cache else replace(usage, cached_tokens=0)
        return reader.finish_reason

    async def _open(self, body: Body) -> openai.AsyncStream[Any]:
        api: Any = self._client.chat.completions if self._request.is_chat else self._client.completions
        arguments = {name: body[name] for name in _ARGUMENTS if name in body}
        more = {name: value for name, value in body.items() if name not in arguments}
        stream: openai.AsyncStream[Any] = await api.create(**arguments, extra_body=more)
        return stream

    def _take(self, deltas: Sequence[Delta]) -> None:
        if not deltas:
            return
        self.note_token()
        self._text += "".join(delta.text for delta in deltas)
        self._pieces += sum(len(delta.tokens) for delta in deltas)
        self._attempts.failures = 0
        self._host.report([Report(self.job, delta, None) for delta in deltas])


class _Beginning:
    """The published text, with which a repeated response must begin."""

    def __init__(self, text: str) -> None:
        self._left = text

    def skip(self, deltas: Sequence[Delta]) -> list[Delta]:
        """Return the output after the published text. Raises UpstreamFailed if the response begins differently."""
        return [rest for delta in deltas if (rest := self._beyond(delta)) is not None]

    def check_passed(self) -> None:
        if self._left:
            raise UpstreamFailed(_CUT)

    def _beyond(self, delta: Delta) -> Delta | None:
        if not self._left:
            return delta
        if self._left.startswith(delta.text):
            self._left = self._left[len(delta.text) :]
            return None
        if not delta.text.startswith(self._left):
            raise UpstreamFailed(_CUT)
        beyond, self._left = delta.text[len(self._left) :], ""
        return replace(delta, text=beyond)


def _with_earlier(usage: Usage | None, earlier_pieces: int) -> Usage | None:
    """Add the earlier pieces, which the upstream server has counted as prompt; a piece counts as a token."""
    if usage is None or not earlier_pieces:
        return usage
    prompt = max(0, usage.prompt_tokens - earlier_pieces)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=usage.completion_tokens + earlier_pieces,
        cached_tokens=min(usage.cached_tokens, prompt),
    )
