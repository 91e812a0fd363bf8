"""Batches embedding jobs: the jobs that wait while the engine is busy share its next call."""

import queue
import threading

from workers.engines.base import Engine
from workers.engines.runner import Report, RunnerHost, RunnerJob, embedded

MAX_TEXTS_PER_CALL = 256


class EmbeddingLoop:
    """One thread that embeds. Each job's outcome is reported once, from that thread."""

    def __init__(self, engine: Engine, host: RunnerHost) -> None:
        self._engine = engine
        self._host = host
        self._waiting: queue.SimpleQueue[RunnerJob] = queue.SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._run, name="embedding-loop", daemon=True).start()

    def submit(self, job: RunnerJob) -> None:
        self._waiting.put(job)

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while not self._waiting.empty() and sum(len(job.request.texts) for job in batch) < MAX_TEXTS_PER_CALL:
                batch.append(self._waiting.get())
            self._embed(batch)

    def _embed(self, batch: list[RunnerJob]) -> None:
        try:
            results = iter(self._engine.embed([text for job in batch for text in job.request.texts]))
        except Exception as error:
            if len(batch) == 1:
                self._host.fail(batch[0], error)
            else:  # a fault of one request must not fail the others
                for job in batch:
                    self._embed([job])
            return
        for job in batch:
            self._host.report([Report(job, None, embedded([next(results) for _ in job.request.texts]))])
