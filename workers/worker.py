"""One worker: a loaded engine, its batch loop, and the jobs it has claimed."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import redis

from app.config.settings import Config
from app.jobs.events import Published, read_published
from app.jobs.job import Kind, Usage
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim, JobStore, new_nonce
from app.jobs.workers import WorkerInfo, WorkerState, announce, forget_failures, retire
from workers.batching.embedding import EmbeddingLoop
from workers.batching.loop import BatchLoop
from workers.batching.sequence import BatchSequence, ResumeState, job_error
from workers.engines.base import Engine, Prompt
from workers.jobs.capacity import Capacity
from workers.jobs.inline_prepare import can_prepare_inline
from workers.jobs.leases import Leases
from workers.jobs.publisher import Publisher
from workers.jobs.quarantine import Quarantine
from workers.jobs.response_cache import ResponseCache
from workers.tokenizer_service import TokenizerService

CLAIM_RETRY_SECONDS = 0.5
HAND_BACK_SECONDS = 4.0  # then this worker leaves all the same, and its leases run out
PREPARING_THREADS = 4

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job of this worker, and what earlier ones have published of it. has_begun: the batch loop has it."""

    claim: Claim
    published: Published | None
    has_begun: bool = False
    cancel_requested: bool = False


class Worker:
    """Runs jobs, at most one per slot; `claim_next` is called in the consumer's thread."""

    def __init__(self, config: Config, client: RedisClient, store: JobStore, worker_id: str) -> None:
        self._store = store
        self._redis = client
        self.info = WorkerInfo(
            id=worker_id, model=config.model_name, family=config.model_family, state=WorkerState.LOADING
        )
        self._publisher = Publisher(
            client,
            model=config.model_name,
            ttl_seconds=config.jobs.ttl,
            on_fenced=lambda job_id: self.cancel(job_id),
            give_back=store.hand_back,
            keep=lambda answers: self._same.keep(answers),
        )
        self._same = ResponseCache(client, config, self._publisher)
        self._leases = Leases(client, model=config.model_name, control=self, describe=self._describe)
        self.on_room: Callable[[], None] = lambda: None  # called when a slot becomes free after all were taken
        self._places = Capacity(
            slots=lambda: self.info.slots,
            followers=lambda: 0 if self._loop is None else self._loop.follower_count,
            on_freed=self._make_room,
        )
        self._threads = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._in_hand: dict[str, RunningJob] = {}
        self._trials = Quarantine(
            client,
            worker_id,
            max_attempts=config.jobs.max_attempts,
            begin=lambda job_id: self._begin(self._in_hand[job_id]),
            spawn=self._threads.submit,
            others=lambda: self._places.jobs - self._trials.count,
            on_quiet=lambda: self.on_room(),
        )
        self._config = config.worker
        self._engine: Engine | None = None
        self._loop: BatchLoop | None = None
        self._embeddings: EmbeddingLoop | None = None
        self._answers: TokenizerService | None = None

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
        config, publish = self._config, self._publisher.publish
        self._loop = BatchLoop(engine, publish, self._make_room, speculates=config.speculation, nice=config.nice)
        self._loop.start()
        self._trials.stage = self._loop
        self._embeddings = EmbeddingLoop(engine)
        self._embeddings.start()
        self._answers = TokenizerService(self._redis, self.info.model, engine)
        self._answers.start()
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
        if self._answers is not None:
            self._answers.stop()
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
        return self._places.jobs

    def has_room(self) -> bool:
        """May another job be fetched? A job waits in Redis, where any worker can take it, never inside a worker."""
        return not self._places.are_taken and self._trials.count == 0

    def claim_next(self) -> None:
        """Claim the first job of the order and begin it; returns at once, its outcome is written when it is there."""
        self._places.enter()
        nonce = new_nonce()
        try:
            claim = self._store.claim(self.info.id, nonce)
        except redis.RedisError as error:
            logger.warning("no job claimed: no answer from Redis (%s)", type(error).__name__)
            threading.Thread(target=self._claim_later, args=[nonce], name="claim", daemon=True).start()
        else:
            self._take(claim)

    def drain(self, seconds: float) -> bool:
        """Wait for the running jobs to end. False: some still run."""
        self.info = replace(self.info, state=WorkerState.DRAINING)
        self._announce()
        return self._places.wait_until_empty(seconds)

    def hand_back(self) -> bool:
        """Stop, and put the jobs that still run back into the queue, for another worker to continue. False: Redis did
        not take them all, and they wait for their leases to run out.
        """
        assert self._loop is not None
        self._loop.stop()
        self._publisher.hand_back_all()
        return self._places.wait_until_empty(HAND_BACK_SECONDS)

    def cancel(self, job_id: str) -> None:
        """End a job before its next step."""
        job = self._in_hand.get(job_id)
        if job is None or self._loop is None:
            return
        job.cancel_requested = True
        if job.has_begun:
            self._loop.cancel(job_id)
        else:  # it is being prepared, waits for its trial, or is an embedding
            self._publisher.cancel(job_id)

    def follow(self, job_id: str) -> None:
        self._publisher.follow(job_id)

    def _claim_later(self, nonce: str) -> None:
        self._take(_until_redis_answers(lambda: self._store.claim(self.info.id, nonce)))

    def _take(self, claim: Claim | None) -> None:
        if claim is None:
            self._places.leave()
            return
        if claim.job_id in self._in_hand:  # lost while this worker stood still; the old attempt has to end first
            threading.Thread(target=self._return, args=[claim], name="return", daemon=True).start()
            return
        self._leases.add(claim)
        if claim.losses:
            self._trials.expect()
        if claim.published_tokens:
            threading.Thread(target=self._take_over, args=[claim], name="take-over", daemon=True).start()
        else:
            self._open(RunningJob(claim, None))

    def _return(self, claim: Claim) -> None:
        """Put a job back whose old attempt still runs here, once that has had time to end."""
        self.cancel(claim.job_id)
        time.sleep(CLAIM_RETRY_SECONDS)
        _until_redis_answers(lambda: self._store.hand_back(claim))
        self._places.leave()

    def _take_over(self, claim: Claim) -> None:
        published = _until_redis_answers(lambda: read_published(self._redis, claim.job_id))
        logger.info("job %s goes on after %d tokens, attempt %d", claim.job_id, len(published.tokens), claim.attempt)
        self._open(RunningJob(claim, published))

    def _open(self, job: "RunningJob") -> None:
        claim = job.claim
        self._in_hand[claim.job_id] = job
        self._publisher.open(claim, lambda: self._closed(claim.job_id), job.published)
        if claim.losses:
            self._trials.add(claim)
        elif can_prepare_inline(claim.request) and job.published is None:
            self._begin(job)
        else:
            self._threads.submit(self._begin, job)

    def _closed(self, job_id: str) -> None:
        self._leases.remove(job_id)
        self._in_hand.pop(job_id, None)
        self._places.leave()
        self._trials.ended(job_id)

    def _make_room(self) -> None:
        if self.has_room():
            self.on_room()

    def _begin(self, job: "RunningJob") -> None:
        assert self._engine is not None and self._loop is not None and self._embeddings is not None
        job_id, request = job.claim.job_id, job.claim.request
        try:
            prompt = None if request.kind is Kind.EMBED else self._engine.prepare(request)
            key = self._same.key(job.claim, prompt)
            if key is not None and self._same.is_answered(job_id, key):
                return
            if prompt is None:
                self._embeddings.submit(request.texts, lambda *done: self._embedded(job_id, *done))
                return
            earlier = None if job.published is None else self._earlier(prompt, job.published)
            seconds = request.timeout_seconds - job.claim.ran_seconds
            self._loop.submit(BatchSequence(job_id, prompt, timeout_seconds=seconds, earlier=earlier, key=key))
            job.has_begun = True
            if job.cancel_requested:  # since before the loop knew it
                self._loop.cancel(job_id)
        except Exception as error:
            self._fail(job_id, error)

    def _earlier(self, prompt: Prompt, published: Published) -> ResumeState:
        assert self._engine is not None
        tokens = published.tokens
        if prompt.elsewhere:  # whose tokens say nothing
            pieces = [published.text.encode(), *(b"" for _ in tokens[1:])]
        else:
            pieces = self._engine.resume(prompt, tokens)
        return ResumeState(tokens=tokens, pieces=pieces, text=published.text)

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


def _until_redis_answers(ask: Callable[[], Answer]) -> Answer:
    while True:
        try:
            return ask()
        except redis.RedisError:
            time.sleep(CLAIM_RETRY_SECONDS)
