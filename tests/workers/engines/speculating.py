"""Requests through the real batch loop, with guessed tokens and without."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from app.jobs.job import FinishReason, JobRequest, TokenLogprob, Usage
from tests.workers.batching.loop_host import Host, make_sequence
from workers.batching.loop import BatchLoop
from workers.batching.step_cost import StepCost
from workers.engines.base import Chunk, Engine, Sampled
from workers.engines.runner import Report

WAIT_SECONDS = 100


@dataclass
class Completion:
    """The output of a request."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass
class Guesses:
    made: int = 0
    held: int = 0


def run_requests(
    engine: Engine,
    *requests: JobRequest,
    speculates: bool,
    monkeypatch: pytest.MonkeyPatch,
    one_by_one: bool = False,
) -> tuple[list[Completion], Guesses]:
    """Run requests all at once, or one by one, and check that no cell is left behind.

    A row counts as cheap, so that guesses are made whatever they cost on this machine.
    """
    completions, guesses, changed = [Completion() for _ in requests], Guesses(), threading.Condition()

    def publish(updates: Sequence[Report]) -> None:
        with changed:
            for job, delta, outcome in updates:
                assert job.run is not None and delta is not None
                completion = completions[int(job.id)]
                completion.text += delta.text
                completion.tokens += delta.tokens
                completion.logprobs += delta.logprobs
                completion.usage = job.run.usage
                if outcome is not None:
                    assert outcome.error is None, outcome
                    completion.reason = outcome.finish_reason
            changed.notify_all()

    def step(chunks: Sequence[Chunk]) -> list[Sampled]:
        results = real_step(chunks)
        guesses.made += sum(chunk.drafted for chunk in chunks)
        guesses.held += sum(len(result.accepted) for result in results)
        return results

    real_step = engine.step
    monkeypatch.setattr(engine, "step", step)
    monkeypatch.setattr(StepCost, "learn", lambda *_: None)
    loop = BatchLoop(engine, Host(publish), speculates=speculates)
    if loop._scheduler.speculation is not None:
        loop._scheduler.speculation.cost.group, loop._scheduler.speculation.cost.row = 1.0, 0.05
    loop.start()
    for number, each in enumerate(requests):
        loop.submit(make_sequence(str(number), engine.prepare(each)))
        if one_by_one or number == len(requests) - 1:
            with changed:
                assert changed.wait_for(lambda: all(s.reason for s in completions[: number + 1]), WAIT_SECONDS)  # noqa: B023
    loop.stop()
    monkeypatch.undo()
    assert engine.used_cells() == loop._scheduler.prefix_cache.cells, "cells are left behind"
    engine.reset()
    return completions, guesses
