"""An engine without a model: each prompt's completion is the bytes of a text, one byte a token."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from app.jobs.job import JobRequest
from app.jobs.sampling import SamplingParams
from workers.engines.base import Chunk, Engine, Limits, Prompt, Sampled

END = 0


def prompt(completion: str, *, length: int = 3, solo: "ScriptedSolo | None" = None, **sampling: Any) -> Prompt:
    """A prompt of `length` tokens that the scripted engine answers with `completion`."""
    return Prompt(tokens=[1] * length, sampling=SamplingParams(**sampling), state=completion.encode(), solo=solo)


class ScriptedSolo:
    """Generates one token a turn; "_" is a turn without a token, "!" fails."""

    def __init__(self) -> None:
        self.running: list[bytes] = []  # one at most

    def run(self, prompt: Prompt, generated: Sequence[int]) -> Generator[Sequence[Sampled]]:
        assert not self.running, "two at once"
        completion: bytes = prompt.state
        self.running.append(completion)
        try:
            for token in completion[len(generated) :]:
                if token == ord("!"):
                    raise ValueError("this sequence fails")
                yield [] if token == ord("_") else [Sampled(token=token, piece=bytes([token]))]
            yield [Sampled(token=END, piece=b"", is_end_token=True)]
        finally:
            self.running.remove(completion)


class ScriptedEngine(Engine):
    """Checks the rule of the cache: a token's position is the number of cells its slot holds, and a sampled slot holds
    the tokens of its own sequence.
    """

    def __init__(
        self,
        *,
        slots: int = 4,
        context_tokens: int = 64,
        max_batched_tokens: int = 16,
        shares_prefixes: bool = False,
        verifies_drafts: bool = False,
    ) -> None:
        self._limits = Limits(slots=slots, context_tokens=context_tokens, max_batched_tokens=max_batched_tokens)
        self._shares_prefixes = shares_prefixes
        self._verifies_drafts = verifies_drafts
        self.cells: dict[int, list[int]] = {}
        self.copied: list[tuple[int, int, int]] = []  # (source, target, tokens)
        self.steps: list[list[tuple[int, int]]] = []  # (slot, tokens) of every step
        self.moves: list[tuple[int, int]] = []
        self.fail_next_step: Exception | None = None
        self.resets = 0

    @property
    def limits(self) -> Limits:
        return self._limits

    def prepare(self, request: JobRequest) -> Prompt:
        return prompt(request.prompt)

    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        return [bytes([token]) for token in generated]

    def start(self, slot: int, prompt: Prompt) -> None:
        assert slot not in self.cells or self._shares_prefixes, "the slot is taken"
        self.cells[slot] = []

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        assert sum(len(chunk.tokens) for chunk in chunks) <= self._limits.max_batched_tokens
        assert [chunk.slot for chunk in chunks] == sorted({chunk.slot for chunk in chunks})
        self.steps.append([(chunk.slot, len(chunk.tokens)) for chunk in chunks])
        if self.fail_next_step is not None:
            error, self.fail_next_step = self.fail_next_step, None
            raise error
        for chunk in chunks:
            assert chunk.position == len(self.cells[chunk.slot]), "a gap or an overlap in the cache"
            self.cells[chunk.slot] += chunk.tokens
        return [self._sample(chunk) for chunk in chunks if chunk.samples]

    def _sample(self, chunk: Chunk) -> Sampled:
        held = [*chunk.prompt.tokens, *chunk.generated, *chunk.draft]
        assert self.cells[chunk.slot] == held, "tokens of another sequence"
        first, accepted = self._next(chunk, len(chunk.generated)), list[Sampled]()
        for number, guess in enumerate(chunk.draft, 1):
            if not (accepted[-1] if accepted else first).confirms(guess):
                break
            accepted.append(self._next(chunk, len(chunk.generated) + number))
        return replace(first, accepted=accepted)

    def _next(self, chunk: Chunk, at: int) -> Sampled:
        completion: bytes = chunk.prompt.state
        if at >= len(completion):
            return Sampled(token=END, piece=b"", is_end_token=True)
        if completion[at : at + 1] == b"!":
            return Sampled(token=END, piece=b"", error=ValueError("this row fails"))
        return Sampled(token=completion[at], piece=completion[at : at + 1])

    def move(self, source: int, target: int) -> None:
        assert target not in self.cells or self._shares_prefixes
        self.cells[target] = self.cells.pop(source)
        self.moves.append((source, target))

    @property
    def slot_cache(self) -> "ScriptedEngine":
        return self

    @property
    def shares_prefixes(self) -> bool:
        return self._shares_prefixes

    @property
    def verifies_drafts(self) -> bool:
        return self._verifies_drafts

    def copy(self, source: int, target: int, tokens: int) -> None:
        assert self.cells[target] == [] and len(self.cells[source]) >= tokens
        self.cells[target] = self.cells[source][:tokens]
        self.copied.append((source, target, tokens))

    def cut(self, slot: int, tokens: int) -> None:
        del self.cells[slot][tokens:]

    def release(self, slot: int | None, prompt: Prompt) -> None:
        if slot is not None:
            del self.cells[slot]

    def reset(self) -> None:
        self.cells.clear()
        self.resets += 1

    def used_cells(self) -> int:
        return sum(map(len, self.cells.values()))
