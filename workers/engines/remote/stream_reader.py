"""Turns the chunks of an upstream stream into pieces of text, as in a job's stream.

Function calls become text again, in the format of Hermes, from which the API parses calls.
"""

import json
from collections.abc import Iterator
from typing import Any

from app.jobs.events import Delta
from app.jobs.job import FinishReason, TokenLogprob, Usage
from workers.engines.remote.failures import BrokenResponse
from workers.engines.shared.vocabulary import shown_token

_REASONS = {"length": FinishReason.LENGTH, "content_filter": FinishReason.CONTENT_FILTER}
MOST_TOKENS = 2**31 - 1  # of one request; no model reads or writes as many
_UNKNOWN_TOKEN = 0  # upstream servers send no ids: a piece of text, or of log-probabilities, counts as one token
_MISSHAPEN = (AttributeError, TypeError, ValueError, KeyError, IndexError, OverflowError)


class StreamReader:
    """Reads one stream. `usage` and `finish_reason` are known at its end; without `finish_reason` it broke off."""

    def __init__(self, *, is_chat: bool) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self._is_chat = is_chat
        self._calls = _Calls()

    def read(self, chunk: Any) -> list[Delta]:
        """Return the output of a chunk. Raises BrokenResponse."""
        try:
            return list(self._read(chunk))
        except _MISSHAPEN as error:
            raise BrokenResponse(type(error).__name__) from None  # its message may quote the response

    def _read(self, chunk: Any) -> Iterator[Delta]:
        if getattr(chunk, "usage", None):
            self.usage = _usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.index:
                continue  # no second one was requested
            text = self._chat_text(choice.delta) if self._is_chat else choice.text or ""
            if not isinstance(text, str):
                raise TypeError
            if choice.finish_reason is not None:
                self.finish_reason = _REASONS.get(choice.finish_reason, FinishReason.STOP)
                text += self._calls.finish(is_cut=self.finish_reason is FinishReason.LENGTH)
            logprobs = list(_chat_logprobs(choice.logprobs) if self._is_chat else _text_logprobs(choice.logprobs))
            if text or logprobs:
                yield Delta(text, (_UNKNOWN_TOKEN,) * max(1, len(logprobs)), tuple(logprobs))

    def _chat_text(self, delta: Any) -> str:
        if delta is None:
            return ""
        text: str = delta.content or getattr(delta, "refusal", None) or ""
        return text + "".join(self._calls.feed(call) for call in delta.tool_calls or ())


class _Calls:
    """Turns the function calls of one response into text, chunk by chunk."""

    def __init__(self) -> None:
        self._open: int | None = None
        self._arguments = ""

    def feed(self, call: Any) -> str:
        text = ""
        if call.index != self._open:
            text = self.finish()
            self._open, self._arguments = call.index or 0, ""
            text += f'<tool_call>{{"name": {json.dumps(call.function.name)}, "arguments": '
        arguments = (call.function.arguments if call.function else None) or ""
        self._arguments += arguments
        return text + arguments

    def finish(self, *, is_cut: bool = False) -> str:
        """End the call. One that was cut off stays open: the API returns no such call."""
        if self._open is None:
            return ""
        self._open = None
        if is_cut and not _is_json(self._arguments):
            return ""
        return ("" if self._arguments else "{}") + "}</tool_call>"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def token_count(reported: Any) -> int | None:
    """Return a number of tokens as an upstream server reports it. None: no response can have so many, or fewer than 0.

    It is added to the ledger, so a wrong one would be wrong for ever.
    """
    count = int(reported or 0)
    return count if 0 <= count <= MOST_TOKENS else None


def _usage(usage: Any) -> Usage | None:
    """Return what the server has counted; None: nothing that can be true."""
    details = getattr(usage, "prompt_tokens_details", None)
    prompt, completion = token_count(usage.prompt_tokens), token_count(usage.completion_tokens)
    cached = token_count((details and details.cached_tokens) or 0)
    if prompt is None or completion is None or cached is None:
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=min(cached, prompt))


def _chat_logprobs(logprobs: Any) -> Iterator[TokenLogprob]:
    for entry in (logprobs and logprobs.content) or ():
        top = {_shown(rival): float(rival.logprob) for rival in entry.top_logprobs or ()}
        yield TokenLogprob(token=_shown(entry), logprob=float(entry.logprob), top=top)


def _shown(entry: Any) -> str:
    return shown_token(bytes(entry.bytes)) if entry.bytes else str(entry.token)


def _text_logprobs(logprobs: Any) -> Iterator[TokenLogprob]:
    tokens = (logprobs and logprobs.tokens) or []
    rivals = (logprobs and logprobs.top_logprobs) or [None] * len(tokens)
    for token, logprob, top in zip(tokens, (logprobs and logprobs.token_logprobs) or [], rivals, strict=True):
        likeliest = {str(rival): float(value) for rival, value in (top or {}).items()}
        yield TokenLogprob(token=str(token), logprob=None if logprob is None else float(logprob), top=likeliest)
