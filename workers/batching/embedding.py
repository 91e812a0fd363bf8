"""Batches embedding requests: whatever waits while the engine is busy goes into its next call together."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.jobs.job import Text
from workers.engines.base import Engine

Vectors = list[list[float]]
OnDone = Callable[[Vectors, int, Exception | None], None]
MAX_TEXTS_PER_CALL = 256


@dataclass(frozen=True, slots=True)
class _Request:
    texts: Sequence[Text]
    on_done: OnDone


class EmbeddingLoop:
    """One thread that embeds, or `Engine.embedding_calls`. `on_done(vectors, tokens, error)` is called from it, once
    per request.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._joins_requests = engine.embedding_calls == 1
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()

    def start(self) -> None:
        for _ in range(self._engine.embedding_calls):
            threading.Thread(target=self._run, name="embedding-loop", daemon=True).start()

    def submit(self, texts: Sequence[Text], on_done: OnDone) -> None:
        self._requests.put(_Request(texts, on_done))

    def _run(self) -> None:
        while True:
            batch = [self._requests.get()]
            while (
                self._joins_requests
                and not self._requests.empty()
                and sum(len(r.texts) for r in batch) < MAX_TEXTS_PER_CALL
            ):
                batch.append(self._requests.get())
            self._embed(batch)

    def _embed(self, batch: list[_Request]) -> None:
        try:
            results = self._engine.embed([text for request in batch for text in request.texts])
        except Exception as error:
            if len(batch) == 1:
                batch[0].on_done([], 0, error)
            else:  # one request's fault is not its neighbours'
                for request in batch:
                    self._embed([request])
            return
        at = 0
        for request in batch:
            mine = results[at : at + len(request.texts)]
            at += len(request.texts)
            request.on_done([vector for vector, _ in mine], sum(tokens for _, tokens in mine), None)
