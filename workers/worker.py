"""One worker: a runner, and the jobs it has claimed."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import redis

from app.config.settings import Config
from app.jobs.job import FinishReason, Kind, Status
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.redis_client import RedisClient
from app.jobs.sharing import Sharing
from app.jobs.store import JobStore
from app.jobs.version import service_version
from app.jobs.worker_registry import WorkerInfo, WorkerState, announce, prune_failures, retire, withdraw
from workers.engines.runner import Outcome, Report, Runner, RunnerJob, job_error
from workers.jobs.claims import Claims
from workers.jobs.leases import Leases
from workers.jobs.publisher import Publisher
from workers.jobs.quarantine import Quarantine
from workers.jobs.response_cache import ResponseCache
from workers.jobs.running_jobs import RunningJob, RunningJobs
from workers.jobs.runtime_adapters import RuntimeAdapters
from workers.jobs.slow_preparations import SlowPreparations
from workers.jobs.worker_figures import WorkerFigures
from workers.stall_watch import StallWatch
from workers.tokenizer_service import TokenizerService

HURRY_SECONDS = 0.1  # a signal handler can set an event, and wakes no thread that waits for jobs
HAND_BACK_SECONDS = 4.0  # then this worker shuts down all the same, and its leases expire

logger = logging.getLogger(__name__)


class Worker:
    """Claims jobs, at most one per slot beside those that are slow to prepare, and submits them to its runner.

    `claim_next` is called in the consumer's thread. on_slot_free: called when a job may be claimed
    again after none could be, from any thread.
    """

    def __init__(self, config: Config, client: RedisClient, store: JobStore, worker_id: str) -> None:
        self._redis = client
        self.info = WorkerInfo(
            id=worker_id,
            model=config.model_name,
            family=config.model_family,
            state=WorkerState.LOADING,
            has_channel=True,
            version=service_version(),
        )
        self.on_slot_free: Callable[[], None] = lambda: None
        self._jobs = RunningJobs()
        self._cache = ResponseCache(client, config)
        self._publisher = Publisher(
            client,
            store,
            self._jobs,
            self._cache,
            self,
            model=config.model_name,
            ttl_seconds=config.jobs.ttl,
            worker_id=worker_id,
            sharing=Sharing.of(config.jobs),
            ledger=LedgerLimits.of(config),
        )
        self._claims = Claims(client, store, self._jobs, self._cache, self, worker_id)
        self._leases = Leases(client, self._jobs, self, model=config.model_name, worker_id=worker_id)
        self._quarantine = Quarantine(client, worker_id, self._jobs, self, max_attempts=config.jobs.max_attempts)
        self._adapters = RuntimeAdapters(client, config, self, worker_id)
        self._slow = SlowPreparations(self._jobs, self.make_room)
        self._stall_seconds = config.worker.stall_seconds
        self._stall_watch: StallWatch | None = None
        self._runner: Runner | None = None
        self._tokenizer: TokenizerService | None = None

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def announce_from_now(self) -> None:
        """Start announcing this worker; stops at `close`. A failure of its host's last one is no longer announced."""
        self._prune_failures(self.info.host)
        self._leases.start()

    def report_progress(self, detail: str, progress: float | None) -> None:
        """Announce how far the loading of the model is (`workers.models.progress.ReportProgress`).

        A step that has ended has no progress: what follows it is not measured.
        """
        self._announce(detail=detail, progress=None if progress == 1 else progress)

    def serve(self, runner: Runner) -> None:
        """Begin to run jobs: the model is loaded."""
        self._runner = self._quarantine.runner = runner
        runner.start()
        self._slow.start()
        self._adapters.start(runner)
        self._stall_watch = StallWatch(runner, self._stall_seconds)
        self._tokenizer = TokenizerService(self._redis, self.info.model, runner)
        self._tokenizer.start()
        self._announce(
            state=WorkerState.READY,
            detail="",
            progress=None,
            slots=runner.slots,
            context_tokens=runner.context_tokens or 0,
            token_bytes=runner.token_bytes,
            device=runner.device,
            default_params=runner.default_params,
        )
        self._prune_failures()

    def _prune_failures(self, host: str | None = None) -> None:
        with contextlib.suppress(redis.RedisError):  # Redis is unreachable: that is no fault of the model
            prune_failures(self._redis, self.info.model, host)

    def trace(self, job_ended: Callable[[RunningJob], None]) -> None:
        """Have a function make the spans of each job that has ended."""
        self._publisher.on_end = job_ended

    def give_up(self, reason: str, *, restart_helps: bool) -> None:
        """Announce that the model cannot be loaded; the registry keeps the reason for a day.

        restart_helps: requests continue to wait for a worker, as long as they would for one that was killed.
        """
        self._leases.stop()  # else its last "loading" might be written after this
        self._announce(state=WorkerState.FAILED, detail=reason, progress=None)
        if not restart_helps:
            with contextlib.suppress(redis.RedisError):  # then jobs are admitted for seconds yet
                withdraw(self._redis, self.info.model)

    def drain(self, seconds: float, hurry: threading.Event | None = None) -> bool:
        """Wait for the running jobs to end, until `hurry` is set at most. Returns False if some still run."""
        self._announce(state=WorkerState.DRAINING)
        end = time.monotonic() + seconds
        while not (hurry and hurry.is_set()) and (left := end - time.monotonic()) > 0:
            if self._jobs.wait_until_empty(min(left, HURRY_SECONDS)):
                return True
        return self.active_jobs == 0

    def hand_back(self) -> bool:
        """Stop, and return the running jobs to the waiting jobs, for another worker to continue.

        Returns False if Redis did not confirm all of them: these are continued when their leases have expired.
        """
        assert self._runner is not None
        self._adapters.stop()
        self._runner.stop()
        self._publisher.hand_back_all()
        return self._jobs.wait_until_empty(HAND_BACK_SECONDS)

    def close(self) -> None:
        """Stop the runner and free the model. Call it when no job is running."""
        if self._tokenizer is not None:
            self._tokenizer.stop()
        self._adapters.stop()
        if self._runner is not None:
            self._runner.close()
        self._slow.close()
        self._leases.stop()
        with contextlib.suppress(redis.RedisError):  # its entry expires within seconds
            retire(self._redis, self.info.id)

    # --- claiming jobs ------------------------------------------------------------------------------------------------

    @property
    def active_jobs(self) -> int:
        """Jobs claimed, or being claimed, whose outcome is not written yet."""
        return len(self._jobs)

    def consumer_turned(self) -> None:
        """Record that the consumer's thread turns, as it does at least every `stall_watch.TURN_SECONDS`."""
        if self._stall_watch is not None:
            self._stall_watch.consumer_turned()

    def has_room(self) -> bool:
        """Return whether another job may be claimed: there are fewer that hold a slot than slots."""
        beyond = len(self._jobs) - self.info.slots
        is_free = beyond < 0 or beyond < self._slow.count()
        return is_free and not self._jobs.is_claiming and self._quarantine.is_empty

    def claim_next(self) -> None:
        """As `Claims.claim_next`."""
        self._claims.claim_next()

    def begin_or_hold(self, job: RunningJob) -> None:
        if self._adapters.hold(job):
            self._slow.watch(job)
        else:
            self.begin_claimed(job)

    def begin_claimed(self, job: RunningJob) -> None:
        job.load_published(job.published)
        if job.cancel_requested:
            self.cancel(job)
        elif job.is_suspect:
            self._quarantine.advance()
        else:
            self._begin(job)

    def _begin(self, job: RunningJob) -> None:
        assert self._runner is not None
        if not (job.request.kind is Kind.EMBED and self.answer_from_cache(job, ())):
            self._runner.submit(job)
            self._slow.watch(job)

    def fail_claimed(self, job: RunningJob, error: Exception) -> None:
        job.load_published(job.published)
        self.fail(job, error)

    # --- changes to running jobs: called by leases, publisher and quarantine ------------------------------------------

    def cancel(self, job: RunningJob) -> None:
        job.cancel_requested = True
        if job.run is not None:
            assert self._runner is not None
            self._runner.cancel(job)
        elif job.is_ready:  # it is being prepared, waits for its trial, or is an embedding
            self.report([Report(job, None, job.canceled_outcome())])
        else:
            self._adapters.sync()  # where it waits for one

    def follow(self, job: RunningJob) -> None:
        job.followed = True
        self._publisher.wake()

    def remove(self, job: RunningJob) -> None:
        before = self._jobs.remove(job)
        if before >= self.info.slots or job.is_suspect:
            self.make_room()
        self._quarantine.advance()

    def make_room(self) -> None:
        if self.has_room():
            self.on_slot_free()

    def sync_adapters(self) -> None:
        self._adapters.sync()

    @property
    def figures(self) -> WorkerFigures:
        """What its metrics show."""
        return WorkerFigures(
            info=self._current_info(),
            counts=None if self._runner is None else self._runner.counts,
            claims=self._claims.count,
            takeovers=self._claims.takeovers,
            trials=self._quarantine.trials,
            fenced_writes=self._publisher.fenced_writes,
            round_trips=self._publisher.round_trips,
        )

    def announce(self) -> None:
        info = self._current_info()
        if self._stall_watch is not None and info.state is WorkerState.READY:
            fault = self._stall_watch.fault()
            info = replace(info, state=WorkerState.STALLED, detail=fault) if fault else info
        announce(self._redis, info)

    # --- what the runner reports (`workers.engines.runner.RunnerHost`) ------------------------------------------------

    def report(self, reports: Sequence[Report]) -> None:
        self._publisher.publish(reports)

    def fail(self, job: RunnerJob, error: Exception) -> None:
        failure = job_error(error)
        if failure.code == "engine_error":
            logger.error("job %s failed", job.id, exc_info=error)
        outcome = Outcome(status=Status.FAILED, finish_reason=FinishReason.ERROR, error=failure)
        self.report([Report(job, None, outcome)])

    def answer_from_cache(self, job: RunnerJob, prompt_tokens: Sequence[int]) -> bool:
        assert isinstance(job, RunningJob)
        cached = self._cache.find_or_register(job, prompt_tokens)
        if cached is not None:
            self.report([cached])
        return cached is not None

    def pass_trial(self, job: RunnerJob) -> None:
        assert isinstance(job, RunningJob)
        job.passed_trial = True
        self._quarantine.advance()

    def _current_info(self) -> WorkerInfo:
        info, runner = replace(self.info, adapters=self._adapters.states), self._runner
        return info if runner is None else replace(info, running=runner.running_count, used_cells=runner.used_cells)

    def _announce(self, **changes: Any) -> None:
        self.info = replace(self.info, **changes)
        try:
            self.announce()
        except redis.RedisError as error:
            logger.warning("state not announced: no reply from Redis (%s)", type(error).__name__)
