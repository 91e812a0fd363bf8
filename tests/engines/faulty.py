"""Engines that fail, each at one place: while it loads, while it prepares a request, in a step, in one row."""

import os
import threading
from collections.abc import Sequence

from app.config.settings import Config
from app.errors import ModelUnavailable
from app.jobs.job import JobRequest
from tests.engines.instant import Instant
from workers.engines.base import Chunk, Prompt, Sampled
from workers.models.progress import ReportProgress


class NeverLoads(Instant):
    def __init__(self, config: Config, report: ReportProgress) -> None:
        raise ModelUnavailable("the model file is not there; put it there")


class ShowsItsGpus(Instant):
    """Fails to load with a message that names the visible GPUs."""

    def __init__(self, config: Config, report: ReportProgress) -> None:
        raise ModelUnavailable(f"GPUs: {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}")


class CrashesWhileLoading(Instant):
    def __init__(self, config: Config, report: ReportProgress) -> None:
        raise RuntimeError("a defect of the engine")


class FailsOnDemand(Instant):
    """Fails at the place that the prompt names: "prepare", "step" or "row"; any other prompt succeeds."""

    def prepare(self, request: JobRequest) -> Prompt:
        if request.prompt == "prepare":
            raise RuntimeError("a defect while preparing")
        prompt = super().prepare(request)
        prompt.state = request.prompt
        return prompt

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        if any(chunk.prompt.state == "step" for chunk in chunks):
            raise RuntimeError("a defect in a step")
        return [self._sample(chunk) for chunk in chunks if chunk.samples]

    def _sample(self, chunk: Chunk) -> Sampled:
        error = RuntimeError("a defect in a row") if chunk.prompt.state == "row" else None
        return Sampled(token=2, piece=b" done", error=error)


class StandsStill(Instant):
    """Does not come back from the step of a prompt "stop"."""

    def prepare(self, request: JobRequest) -> Prompt:
        prompt = super().prepare(request)
        prompt.state = request.prompt
        return prompt

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        if any(chunk.prompt.state == "stop" for chunk in chunks):
            threading.Event().wait()
        return super().step(chunks)


class DiesWhileLoading(Instant):
    """Ends its process as a fault of a native library does."""

    def __init__(self, config: Config, report: ReportProgress) -> None:
        os.abort()
