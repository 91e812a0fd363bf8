"""A draft model without a model: it knows the completions of the scripted engine, and misses some of their bytes."""

import random
from collections.abc import Sequence

from tests.workers.batching.scripted_engine import ScriptedEngine
from workers.engines.base import Continuation, Guess, Prompt


class ScriptedDraft:
    """hit_rate: share of guesses that are right. Its guesses are drawn, with the probability of a hit as confidence."""

    max_tokens = 8

    def __init__(self, hit_rate: float, seed: int = 1) -> None:
        self.hit_rate = hit_rate
        self.fails = False
        self.held: dict[int, list[int]] = {}
        self.made = 0
        self._chance = random.Random(seed)

    def unread(self, continuation: Continuation) -> int | None:
        text = [*continuation.prompt.tokens, *continuation.generated]
        held = self.held.get(continuation.slot, [])
        shared = next(
            (at for at, (a, b) in enumerate(zip(held, text, strict=False)) if a != b), min(len(held), len(text))
        )
        return len(text) - min(shared, len(text) - 1)

    def guess(self, continuations: Sequence[Continuation], rows: int) -> list[Guess | None]:
        if self.fails:
            raise ValueError("this draft model fails")
        return [self._guess(continuation, rows) for continuation in continuations]

    def _guess(self, continuation: Continuation, rows: int) -> Guess | None:
        text, unread = [*continuation.prompt.tokens, *continuation.generated], self.unread(continuation)
        assert unread is not None
        end = min(len(text), len(text) - unread + rows)
        self.held[continuation.slot] = text[:end]
        completion: bytes = continuation.prompt.state
        at = len(continuation.generated)
        if end < len(text) or at >= len(completion):
            return None
        self.made += 1
        hits = self._chance.random() < self.hit_rate
        return Guess(completion[at] if hits else 255 - completion[at], self.hit_rate)


class DraftedEngine(ScriptedEngine):
    """A scripted engine whose slots a scripted draft model follows."""

    def __init__(self, draft: ScriptedDraft, **limits: int) -> None:
        super().__init__(shares_prefixes=True, verifies_drafts=True, **limits)  # type: ignore[arg-type]
        self.draft = draft

    @property
    def draft_model(self) -> ScriptedDraft:
        return self.draft

    def start(self, slot: int, prompt: Prompt) -> None:
        super().start(slot, prompt)
        self.draft.held.pop(slot, None)

    def release(self, slot: int | None, prompt: Prompt) -> None:
        super().release(slot, prompt)
        if slot is not None:
            self.draft.held.pop(slot, None)

    def reset(self) -> None:
        super().reset()
        self.draft.held.clear()

    def move(self, source: int, target: int) -> None:
        super().move(source, target)
        self.draft.held[target] = self.draft.held.pop(source, [])

    def copy(self, source: int, target: int, tokens: int) -> None:
        super().copy(source, target, tokens)
        self.draft.held[target] = self.draft.held.get(source, [])[:tokens]

    def cut(self, slot: int, tokens: int) -> None:
        super().cut(slot, tokens)
        del self.draft.held.get(slot, [])[tokens:]
