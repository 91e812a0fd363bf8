"""A slow engine: each step sleeps, and each sequence writes "tick " until its max_tokens."""

import time
from collections.abc import Sequence

from app.config.settings import Config
from app.jobs.job import JobRequest
from app.jobs.sampling import SamplingParams
from workers.engines.base import Chunk, Engine, Limits, Prompt, Sampled
from workers.models.progress import ReportProgress


class Slow(Engine):
    """model_params.step_seconds: how long a step takes."""

    def __init__(self, config: Config, report: ReportProgress) -> None:
        self._step_seconds = float(config.model_params.get("step_seconds", 0.05))
        self._slots = config.worker.slots or 4

    @property
    def limits(self) -> Limits:
        return Limits(slots=self._slots, context_tokens=100_000, max_batched_tokens=512)

    def prepare(self, request: JobRequest) -> Prompt:
        return Prompt(tokens=[1], sampling=SamplingParams.build({"max_tokens": 20}, request.params))

    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        return [b"tick " for _ in generated]

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        time.sleep(self._step_seconds)
        return [Sampled(token=2, piece=b"tick ") for chunk in chunks if chunk.samples]
