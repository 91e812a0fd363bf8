"""Log probabilities in the two shapes that OpenAI's API has."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from app.jobs.job import TokenLogprob

_BYTES = "bytes:"  # how a part of a character is written: bytes:\\xf0\\x9f


def chat_logprobs(entries: Iterable[TokenLogprob]) -> dict[str, Any]:
    return {"content": [_token(entry) for entry in entries], "refusal": None}


def _token(entry: TokenLogprob) -> dict[str, Any]:
    top = [_one(token, logprob) for token, logprob in entry.top.items()]
    return {**_one(entry.token, entry.logprob or 0.0), "top_logprobs": top}


def _one(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token_bytes(token))}


class CompletionLogprobs:
    """The parallel lists of `/v1/completions`, piece by piece; the offsets continue from piece to piece."""

    def __init__(self) -> None:
        self._characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        offsets = []
        for entry in entries:
            offsets.append(self._characters)
            self._characters += len(self._decoder.decode(token_bytes(entry.token)))
        return {
            "tokens": [entry.token for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": [entry.top if entry.logprob is not None else None for entry in entries],
            "text_offset": offsets,
        }


def token_bytes(token: str) -> bytes:
    if token.startswith(_BYTES):
        try:
            return bytes.fromhex(token.removeprefix(_BYTES).replace("\\x", ""))
        except ValueError:
            pass  # a token that really is this text
    return token.encode("utf-8", "replace")


def mean_logprob(entries: Sequence[TokenLogprob]) -> float:
    """Return how likely a text is, per token; an empty one is less likely than any other."""
    known = [entry.logprob for entry in entries if entry.logprob is not None]
    return sum(known) / len(known) if known else float("-inf")
