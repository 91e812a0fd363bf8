"""Requests through the real batch loop, and `model.generate()` on the same prompts."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.config.settings import Config, WorkerConfig
from app.errors import LLMAPIError
from app.jobs.job import FinishReason, JobError, JobRequest, Kind, Status, TokenLogprob
from tests.workers.batching.loop_host import Host, make_sequence
from workers.batching.loop import BatchLoop
from workers.batching.sequence import ResumeState
from workers.engines.runner import Report, RunnerJob
from workers.engines.transformers.engine import HuggingfaceEngine

THREADS = 1  # two that wait for each other are far slower when the machine is busy
WAIT_SECONDS = 60


def make_engine(
    folder: Path, *, slots: int = 6, setup: dict[str, Any] | None = None, **params: Any
) -> HuggingfaceEngine:
    config = Config(
        model_name="m",
        model_family="huggingface",
        setup_params={"path": str(folder), **(setup or {})},
        model_params={"dtype": "torch.float32", "n_threads": THREADS, "n_batch": 32, **params},
        worker=WorkerConfig(slots=slots),
    )
    return HuggingfaceEngine(config, lambda *_: None)


def request(prompt: str, **params: Any) -> JobRequest:
    return JobRequest(kind=Kind.GENERATE, prompt=prompt, params=params)


@dataclass
class Result:
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    deltas: int = 0
    status: Status | None = None
    reason: FinishReason | None = None
    error: JobError | None = None


class Service:
    """An engine in its loop."""

    def __init__(self, engine: HuggingfaceEngine) -> None:
        self.engine = engine
        self.results: dict[str, Result] = {}
        self.cached: dict[str, int] = {}  # tokens of each prompt that were not computed
        self.changed = threading.Condition()
        self.loop = BatchLoop(engine, Host(self._publish))

    def submit(self, name: str, job_request: JobRequest, earlier: Sequence[int] = (), text: str = "") -> RunnerJob:
        """earlier: tokens of another attempt, of which `text` has been published."""
        prompt = self.engine.prepare(job_request)
        resumed = None
        if earlier:
            pieces = self.engine.resume(prompt, earlier)
            resumed = ResumeState(tokens=list(earlier), pieces=pieces, text=text)
        self.results[name] = Result()
        sequence = make_sequence(name, prompt, earlier=resumed, request=job_request)
        self.loop.submit(sequence)
        return sequence.job

    def wait(self, *names: str) -> list[Result]:
        with self.changed:
            done = self.changed.wait_for(
                lambda: all(self.results[name].status is not None for name in names), WAIT_SECONDS
            )
        assert done, [name for name in names if self.results[name].status is None]
        return [self.results[name] for name in names]

    def _publish(self, updates: Sequence[Report]) -> None:
        with self.changed:
            for job, delta, outcome in updates:
                assert job.run is not None and delta is not None
                result = self.results[job.id]
                self.cached[job.id] = job.run.usage.cached_tokens
                result.text += delta.text
                result.tokens += delta.tokens
                result.logprobs += delta.logprobs
                result.deltas += bool(delta.tokens)
                if outcome is not None:
                    result.status, result.reason, result.error = outcome.status, outcome.finish_reason, outcome.error
            self.changed.notify_all()


@contextmanager
def serving(engine: HuggingfaceEngine) -> Iterator[Service]:
    """Run the engine in its loop, and check at the end that no cell is left behind."""
    service = Service(engine)
    service.loop.start()
    try:
        yield service
    finally:
        service.loop.stop()
        left = engine.used_cells() - service.loop._scheduler.prefix_cache.cells
        engine.reset()
    assert left == 0 or not all(result.status for result in service.results.values()), "cells are left behind"


def complete(engine: HuggingfaceEngine, *requests: JobRequest) -> list[Result]:
    """Run all requests at once. Fails where one of them does."""
    with serving(engine) as service:
        names = [f"s{number}" for number in range(len(requests))]
        for name, job_request in zip(names, requests, strict=True):
            service.submit(name, job_request)
        results = service.wait(*names)
    failed = [result.error for result in results if result.error is not None]
    assert not failed, failed
    return results


def generated(engine: HuggingfaceEngine, prompt: str, *, seed: int | None = None, **arguments: Any) -> list[int]:
    """Return the new tokens of `generate()` for the prompt, without the end token."""
    model, tokenizer = engine._loaded.model, engine._loaded.tokenizer
    ids = torch.tensor([engine._vocabulary.tokenize(prompt)])
    if seed is not None:
        torch.manual_seed(seed)
    with torch.inference_mode():
        output = model.generate(ids, tokenizer=tokenizer, **arguments)
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens[:-1] if tokens and tokens[-1] == tokenizer.eos_token_id else tokens


def refusal(engine: HuggingfaceEngine, prompt: str = "a", **params: Any) -> LLMAPIError:
    """Return the error with which a request is refused before it runs."""
    try:
        engine.prepare(request(prompt, **params))
    except LLMAPIError as error:
        return error
    raise AssertionError("it was accepted")
