"""Runs jobs on an engine: prepares each, and submits it to the batch loop or to the embedding loop."""

import functools
import time
from collections.abc import Sequence

from app.config.adapters import Adapter
from app.config.settings import WorkerConfig
from app.jobs.job import Chat, JobRequest, Kind
from app.jobs.sampling import CONSTRAINTS
from workers.batching.costly_grammars import CostlyGrammars
from workers.batching.embedding import EmbeddingLoop
from workers.batching.loop import BatchLoop
from workers.batching.prepare_threads import PrepareThreads
from workers.batching.sequence import BatchSequence, ResumeState
from workers.engines.base import Engine
from workers.engines.runner import Runner, RunnerHost, RunnerJob
from workers.engines.runner_counts import RunnerCounts

INLINE_CHARACTERS = 4096  # tokenizing these takes under a millisecond: not worth another thread


class BatchRunner(Runner):
    """Chats, long prompts and grammars are prepared by a few threads, the others by the thread that submits them."""

    def __init__(self, engine: Engine, config: WorkerConfig, host: RunnerHost) -> None:
        self.slots, self.context_tokens = engine.limits.slots, engine.limits.context_tokens
        self.token_bytes, self.device = engine.token_bytes, engine.device
        self.default_params = engine.default_params
        self._engine = engine
        self._host = host
        self._costly_grammars = CostlyGrammars()
        self._loop = BatchLoop(
            engine, host, speculates=config.speculation, nice=config.nice, note_failure=self._note_failure
        )
        self._embeddings = EmbeddingLoop(engine, host, nice=config.nice)
        self._threads = PrepareThreads()

    @property
    def running_count(self) -> int:
        return self._loop.running_count

    @property
    def used_cells(self) -> int:
        return self._loop.used_cells

    @property
    def counts(self) -> RunnerCounts:
        return self._loop.counts

    @property
    def seconds_in_turn(self) -> float:
        return max(self._loop.seconds_in_turn, self._embeddings.seconds_in_turn)

    def start(self) -> None:
        self._loop.start()
        self._embeddings.start()

    def submit(self, job: RunnerJob) -> None:
        job.submitted_at = time.monotonic()  # preparing it takes a part of its time
        if job.request.kind is Kind.EMBED:
            self._embeddings.submit(job)
        elif job.published is None and _is_prepared_inline(job.request):
            self._begin(job)
        else:
            self._threads.submit(job.tenant, functools.partial(self._begin, job))

    def pause_all(self) -> None:
        self._loop.pause_all()

    def submit_alone(self, job: RunnerJob, *, tokens: int | None) -> None:
        self._loop.pause_others(job.id, tokens=tokens)
        self.submit(job)

    def release_others(self) -> None:
        self._loop.release_others()

    def cancel(self, job: RunnerJob) -> None:
        self._loop.wake()

    def load_adapter(self, adapter: Adapter) -> None:
        self._engine.load_adapter(adapter)

    def unload_adapter(self, name: str, version: str) -> None:
        self._engine.unload_adapter(name, version)

    def stop(self) -> None:
        self._loop.stop()

    def close(self) -> None:
        self.stop()
        if not self._loop.stands_still:  # else it still computes with what would be freed, and the process ends anyway
            self._engine.close()
        self._threads.stop()

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        return self._engine.tokenize(text, add_special=add_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._engine.detokenize(tokens)

    def _begin(self, job: RunnerJob) -> None:
        if job.cancel_requested:
            return  # its end is reported where it is canceled, as it has no run
        try:
            self._costly_grammars.check(job.tenant, job.request)
            prompt = self._engine.prepare(job.request)
            self._costly_grammars.note_served(job.request)
            if prompt.is_deterministic and self._host.answer_from_cache(job, prompt.tokens):
                return
            earlier = None
            if job.published is not None:
                tokens = job.published.tokens
                pieces = self._engine.resume(prompt, tokens)
                earlier = ResumeState(tokens=tokens, pieces=pieces, text=job.published.text)
            job.run = sequence = BatchSequence(job, prompt, earlier=earlier)
        except Exception as error:
            self._note_failure(job, error)
            self._host.fail(job, error)
        else:
            self._loop.submit(sequence)  # the loop sees an earlier cancellation

    def _note_failure(self, job: RunnerJob, error: Exception) -> None:
        self._costly_grammars.note(job.tenant, error)


def _is_prepared_inline(request: JobRequest) -> bool:
    """Grammars can take a second; a chat waits for the process that renders it."""
    constrained = any(request.params.get(name) is not None for name in CONSTRAINTS)
    return request.chat is None and not constrained and len(request.prompt) <= INLINE_CHARACTERS
