"""One worker: a loaded engine, its batch loop, and the jobs it has claimed."""

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import redis

from app.contract.config import Config
from app.contract.job_store import Claim, JobStore
from app.contract.jobs import JobRequest, Kind, Usage
from app.contract.redis_client import RedisClient
from app.contract.worker_registry import WorkerInfo, WorkerState, announce, forget_failures, retire
from workers.batching.embedding import EmbeddingLoop
from workers.batching.loop import BatchLoop
from workers.batching.sequence import Sequence, job_error
from workers.engines.base import Engine
from workers.leases import Leases
from workers.publisher import Publisher

CLAIM_RETRY_SECONDS = 0.5
PREPARING_THREADS = 4
QUICK_CHARACTERS = 4096  # tokenizing these takes under a millisecond: not worth another thread

logger = logging.getLogger(__name__)


def new_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Worker:
    """Runs the jobs that Celery hands over, at most one per slot; `run` is called in the consumer's thread."""

    def __init__(self, config: Config, client: RedisClient, store: JobStore, worker_id: str) -> None:
        self._store = store
        self._redis = client
        self.info = WorkerInfo(
            id=worker_id, model=config.model_name, family=config.model_family, state=WorkerState.LOADING
        )
        self._publisher = Publisher(
            client, model=config.model_name, ttl_seconds=config.jobs.ttl, on_fenced=lambda job_id: self.cancel(job_id)
        )
        self._leases = Leases(client, model=config.model_name, control=self, describe=self._describe)
        self.on_room: Callable[[], None] = lambda: None  # called when a slot becomes free after all were taken
        self._active = 0
        self._changed = threading.Condition()
        self._threads = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._engine: Engine | None = None
        self._loop: BatchLoop | None = None
        self._embeddings: EmbeddingLoop | None = None

    def announce_from_now(self) -> None:
        """Tell the registry that this worker exists, and keep telling it."""
        self._leases.start()

    def report(self, detail: str, progress: float | None) -> None:
        """How far the loading of the model is (`workers.engines.base.ReportProgress`)."""
        self.info = replace(self.info, detail=detail, progress=progress)
        self._announce()

    def serve(self, engine: Engine) -> None:
        """The model is loaded: jobs may come."""
        self._engine = engine
        self._loop = BatchLoop(engine, self._publisher.publish)
        self._loop.start()
        self._embeddings = EmbeddingLoop(engine)
        self._embeddings.start()
        limits = engine.limits
        self.info = replace(
            self.info,
            state=WorkerState.READY,
            detail="",
            progress=None,
            slots=limits.slots,
            context_tokens=limits.context_tokens,
        )
        self._announce()
        with contextlib.suppress(redis.RedisError):  # Redis is away: that is no fault of the model, and can wait
            forget_failures(self._redis, self.info.model)

    def give_up(self, reason: str) -> None:
        """The model cannot be loaded; the registry keeps the reason for a day."""
        self._leases.stop()  # or its last "loading" might come after this
        self.info = replace(self.info, state=WorkerState.FAILED, detail=reason, progress=None)
        self._announce()

    def close(self) -> None:
        """Stop the loop and free the model. Call it when no job runs any more."""
        if self._loop is not None:
            self._loop.stop()
        if self._engine is not None:
            self._engine.close()
        self._threads.shutdown(wait=False)
        self._leases.stop()
        with contextlib.suppress(redis.RedisError):  # its entry ends by itself within seconds
            retire(self._redis, self.info.id)

    @property
    def active_jobs(self) -> int:
        """Jobs claimed, or being claimed, whose outcome is not written yet."""
        return self._active

    def has_room(self) -> bool:
        """May another job be fetched? A job waits in Redis, where any worker can take it, never inside a worker."""
        return self._active < self.info.slots

    def run(self, job_id: str) -> None:
        """Claim a job and begin it; returns at once, its outcome is written when it is there."""
        with self._changed:
            self._active += 1
        try:
            claim = self._store.claim(job_id, self.info.id)
        except redis.RedisError as error:
            logger.warning("job %s not claimed: no answer from Redis (%s)", job_id, type(error).__name__)
            self._threads.submit(self._claim_later, job_id)
        else:
            self._take(claim)

    def drain(self, seconds: float) -> bool:
        """Wait for the running jobs to end. False: some still run."""
        with self._changed:
            return self._changed.wait_for(lambda: self._active == 0, timeout=seconds)

    def cancel(self, job_id: str) -> None:
        if self._loop is not None:
            self._loop.cancel(job_id)

    def follow(self, job_id: str) -> None:
        self._publisher.follow(job_id)

    def _claim_later(self, job_id: str) -> None:
        while True:
            time.sleep(CLAIM_RETRY_SECONDS)
            with contextlib.suppress(redis.RedisError):
                self._take(self._store.claim(job_id, self.info.id))
                return

    def _take(self, claim: Claim | None) -> None:
        if claim is None:
            self._leave()
            return
        self._leases.add(claim)
        self._publisher.open(claim, lambda: self._closed(claim.job_id))
        if _is_quick(claim.request):
            self._begin(claim)
        else:
            self._threads.submit(self._begin, claim)

    def _closed(self, job_id: str) -> None:
        self._leases.remove(job_id)
        self._leave()

    def _leave(self) -> None:
        with self._changed:
            was_full = not self.has_room()
            self._active -= 1
            self._changed.notify_all()
        if was_full:
            self.on_room()

    def _begin(self, claim: Claim) -> None:
        assert self._engine is not None and self._loop is not None and self._embeddings is not None
        try:
            if claim.request.kind is Kind.EMBED:
                self._embeddings.submit(claim.request.texts, lambda *done: self._embedded(claim.job_id, *done))
                return
            prompt = self._engine.prepare(claim.request)
        except Exception as error:
            self._fail(claim.job_id, error)
            return
        self._loop.submit(Sequence(claim.job_id, prompt, timeout_seconds=claim.request.timeout_seconds))

    def _embedded(self, job_id: str, vectors: list[list[float]], tokens: int, error: Exception | None) -> None:
        if error is not None:
            self._fail(job_id, error)
        else:
            self._publisher.finish(job_id, embeddings=vectors, usage=Usage(prompt_tokens=tokens))

    def _fail(self, job_id: str, error: Exception) -> None:
        failure = job_error(error)
        if failure.code == "engine_error":
            logger.error("job %s failed", job_id, exc_info=error)
        self._publisher.finish(job_id, error=failure)

    def _describe(self) -> WorkerInfo:
        if self._loop is None:
            return self.info
        return replace(self.info, running=self._loop.running_count, used_cells=self._loop.used_cells)

    def _announce(self) -> None:
        try:
            announce(self._redis, self._describe())
        except redis.RedisError as error:
            logger.warning("state not announced: no answer from Redis (%s)", type(error).__name__)


def _is_quick(request: JobRequest) -> bool:
    """Is the request prepared so fast that the consumer's thread may do it? Grammars can take a second."""
    constrained = request.params.get("grammar") or request.params.get("json_schema")
    return request.kind is Kind.EMBED or (len(request.prompt) <= QUICK_CHARACTERS and not constrained)
