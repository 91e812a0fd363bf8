"""What the engine keeps per sequence, as `Prompt.state`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from app.jobs.job import FinishReason, TokenLogprob
from workers.engines.base import Sampled
from workers.engines.transformers.forward.adapters import AdapterSet
from workers.engines.transformers.generation.processors import FollowGrammar
from workers.engines.transformers.vocabulary import Spell


@dataclass(slots=True, kw_only=True)
class State:
    """Of any sequence. max_seconds: `max_time` of transformers, counted from the first step."""

    spell: Spell
    end_tokens: frozenset[int]
    grammar: FollowGrammar | None = None
    max_seconds: float | None = None
    started_at: float | None = None
    adapters: AdapterSet = ()

    def resume(self, generated: Sequence[int]) -> list[bytes]:
        """See `Engine.resume`."""
        if self.grammar is not None:
            self.grammar.accept(generated)
        return [self.spell(token) for token in generated]

    def start(self) -> None:
        if self.started_at is None:
            self.started_at = time.monotonic()

    @property
    def is_out_of_time(self) -> bool:
        if self.max_seconds is None or self.started_at is None:
            return False
        return time.monotonic() - self.started_at > self.max_seconds

    def sampled(self, token: int, **details: Any) -> Sampled:
        """Return a token for the loop. One that ends the text and has a text of its own is output, as `generate()` does
        it: `eos_token_id` may name any token.
        """
        piece = self.spell(token)
        ends = token in self.end_tokens
        last = FinishReason.LENGTH if self.is_out_of_time else None
        if ends and piece:
            last = FinishReason.STOP
        return Sampled(token=token, piece=piece, is_end_token=ends and not piece, finish_reason=last, **details)


@dataclass(slots=True, kw_only=True)
class RowState(State):
    """Of a row of the batch. processors: look at the row's tokens. warpers: look at its scores alone, so that rows with
    the same `warper_key` share them. generator: None = greedy. is_seeded: the same request draws the same tokens
    again.
    """

    processors: list[Any]
    warpers: list[Any]
    warper_key: tuple[Any, ...]
    generator: torch.Generator | None
    is_seeded: bool
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class SoloState(State):
    """Of a sequence that runs in `generate()`. arguments: for it. processors: of our own. streams: its tokens are final
    as they come.
    """

    arguments: dict[str, Any]
    processors: list[Any]
    streams: bool
    seed: int
