"""An engine that counts: "1/v 2/v 3/v ", where v is the voice of its process. A lost or repeated token shows.

It reads the last number from its cache, as a model would: a sequence that continues at the wrong position, or without
the tokens of an earlier attempt, writes a wrong number or fails. And no two processes write the same text, as with a
temperature: a process that starts over what another has begun contradicts the published text.
"""

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.config.settings import Config
from app.jobs.job import JobRequest
from app.jobs.sampling import SamplingParams
from workers.engines.base import Chunk, Engine, Limits, Prompt, Sampled
from workers.models.progress import ReportProgress

_VOICES = 1000
_POISON = re.compile(r"poison(?: after ([0-9]+))?")


@dataclass(slots=True)
class _Count:
    """last: the last number written. deadly: the number at which the process kills itself instead of writing it."""

    last: int = 0
    deadly: int | None = None


class Counting(Engine):
    """model_params.step_seconds: how long a step takes.

    A prompt that begins with "poison" kills the worker's process in its first step, one with "poison after N" at its
    N-th token.
    """

    def __init__(self, config: Config, report: ReportProgress) -> None:
        self._step_seconds = float(config.model_params.get("step_seconds", 0.02))
        self._slots = config.worker.slots or 4
        self._voice = os.getpid() % _VOICES
        self._cells: dict[int, list[int]] = {}

    @property
    def limits(self) -> Limits:
        return Limits(slots=self._slots, context_tokens=100_000, max_batched_tokens=512)

    def prepare(self, request: JobRequest) -> Prompt:
        poison = _POISON.match(request.prompt)
        state = _Count(deadly=int(poison[1] or 1) if poison else None)
        return Prompt(tokens=[0], sampling=SamplingParams.build({"max_tokens": 20}, request.params), state=state)

    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        prompt.state.last = len(generated)
        return [_piece(token) for token in generated]

    def start(self, slot: int, prompt: Prompt) -> None:
        self._cells[slot] = []

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        time.sleep(self._step_seconds)
        for chunk in chunks:
            assert chunk.position == len(self._cells[chunk.slot]), "a chunk begins where the slot's cells end"
            self._cells[chunk.slot] += chunk.tokens
        return [self._sample(chunk) for chunk in chunks if chunk.samples]

    def release(self, slot: int | None, prompt: Prompt) -> None:
        if slot is not None:
            self._cells.pop(slot, None)

    def reset(self) -> None:
        self._cells.clear()

    def used_cells(self) -> int:
        return sum(map(len, self._cells.values()))

    def _sample(self, chunk: Chunk) -> Sampled:
        count: _Count = chunk.prompt.state
        number = self._cells[chunk.slot][-1] // _VOICES + 1
        assert number == count.last + 1 == len(chunk.generated) + 1, "cache, state and sequence are at the same place"
        if count.deadly is not None and number >= count.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        count.last = number
        token = number * _VOICES + self._voice
        return Sampled(token=token, piece=_piece(token))


def voiceless(text: str) -> str:
    """Return the numbers without the voice."""
    return re.sub("/[0-9]+ ", " ", text)


def _piece(token: int) -> bytes:
    number, voice = divmod(token, _VOICES)
    return f"{number}/{voice} ".encode()
