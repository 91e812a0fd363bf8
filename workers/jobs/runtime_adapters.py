"""The LoRA adapters of this worker that are loaded and unloaded while it runs.

A thread compares what Redis has with what is loaded: when the API sends word, and every few seconds, because a message
may be lost. A job whose adapter is not loaded yet waits here, without a slot.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import redis

from app.config.settings import Config
from app.errors import AdapterUnavailable, InvalidRequest, LLMAPIError, StartupError
from app.jobs.adapter_registry import AdapterRegistry, RegisteredAdapter
from app.jobs.job import AdapterUse
from app.jobs.redis_client import RedisClient
from workers.engines.runner import Runner
from workers.jobs.load_attempts import LoadAttempts
from workers.jobs.running_jobs import RunningJob
from workers.models.adapter_source import runtime_adapter

SYNC_SECONDS = 5.0
WAIT_SECONDS = 60.0  # that a job waits for its adapter
_LOOK_SECONDS = 0.5  # between two looks at the jobs that wait
LOADED = ""

logger = logging.getLogger(__name__)


class AdapterHost(Protocol):
    """The worker, as its adapters see it."""

    def announce(self) -> None:
        """Write the worker's state. Raises `redis.RedisError`."""

    def begin_claimed(self, job: RunningJob) -> None:
        """Begin a job that waited for its adapters, or was canceled meanwhile."""

    def fail_claimed(self, job: RunningJob, error: Exception) -> None:
        """End a job that cannot have its adapters."""


class RuntimeAdapters:
    """states: of each registered adapter by its version: `LOADED`, or why it cannot be loaded. It is replaced, never
    changed, so that any thread may read it.
    """

    def __init__(self, client: RedisClient, config: Config, worker: AdapterHost, worker_id: str) -> None:
        self.states: Mapping[str, str] = {}
        self._redis = client
        self._config = config
        self._worker = worker
        self._worker_id = worker_id
        self._registry = AdapterRegistry(client, config.model_name)
        self._is_enabled = config.adapters.runtime_loading
        self._loaded: dict[str, RegisteredAdapter] = {}  # by version
        self._waiting: dict[RunningJob, float] = {}  # jobs, and since when
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._to_load: queue.SimpleQueue[tuple[RegisteredAdapter, threading.Event]] = queue.SimpleQueue()
        self._stopping = False

    def start(self, runner: Runner) -> None:
        """Load the adapters that are served, then follow what changes. runner: has loaded the model."""
        if not self._is_enabled:
            return
        self._runner = runner
        threading.Thread(target=self._load_each, name="load-adapter", daemon=True).start()
        with contextlib.suppress(redis.RedisError):  # the thread tries again
            self._load_missing(self._registry.served())
        threading.Thread(target=self._run, name="adapters", daemon=True).start()

    def stop(self) -> None:
        """Load nothing more, and begin no more jobs."""
        self._stopping = True
        self.sync()

    def sync(self) -> None:
        """Look soon what is to be loaded, and which jobs can begin."""
        self._due.set()

    def hold(self, job: RunningJob) -> bool:
        """Keep a job whose adapters this worker has not loaded, until it has. Returns False: it can begin."""
        if not self._is_enabled or not self._missing(job):
            return False
        job.submitted_at = time.monotonic()
        with self._lock:
            self._waiting[job] = job.submitted_at
        self.sync()
        return True

    def _run(self) -> None:
        while not self._stopping:
            waiting = set(self._waiting)  # an adapter of a job that comes later may have been registered later
            try:
                registered = self._registry.all()
            except redis.RedisError as error:
                logger.warning("adapters not compared: no reply from Redis (%s)", type(error).__name__)
                self._settle()
            else:
                self._unload_others(registered)
                self._load_missing(registered)
                self._settle(waiting, registered)
            self._due.wait(_LOOK_SECONDS if self._waiting else SYNC_SECONDS)
            self._due.clear()

    def _unload_others(self, registered: Sequence[RegisteredAdapter]) -> None:
        others = self.states.keys() - {adapter.version for adapter in registered}
        if not others:
            return
        self.states = {version: state for version, state in self.states.items() if version not in others}
        for version in others & self._loaded.keys():
            adapter = self._loaded.pop(version)
            self._runner.unload_adapter(adapter.name, version)
            logger.info("unloaded the adapter %s", adapter.name)
        self._announce()

    def _load_missing(self, registered: Sequence[RegisteredAdapter]) -> None:
        for adapter in registered:
            if adapter.version in self.states:
                continue
            is_done = threading.Event()
            self._to_load.put((adapter, is_done))
            while not (is_done.wait(_LOOK_SECONDS) or self._stopping):
                self._settle()  # it may be fetched first: others need not wait for that
            self._settle()
            self._announce()

    def _load_each(self) -> None:
        """Load adapters in one thread for all: the C library keeps freed memory for each thread that has had some."""
        while True:
            adapter, is_done = self._to_load.get()
            try:
                self._load(adapter)
            finally:
                is_done.set()

    def _load(self, registered: RegisteredAdapter) -> None:
        """Load an adapter, or note why not. A fault of a native library would end the worker: it is not tried again."""
        name, version = registered.name, registered.version
        attempts = LoadAttempts(
            self._redis, [version], self._worker_id, most=1, what=f"the adapter {name!r}", fix="use another file"
        )
        state = LOADED
        try:
            with attempts.counted():
                adapter = runtime_adapter(self._config.models_dir, name, registered.source, version)
                self._runner.load_adapter(adapter)
        except StartupError as error:
            state = error.detail
        except Exception as error:
            logger.exception("the adapter %s failed while loading", name)
            state = f"the engine failed while loading it ({type(error).__name__}); the worker's log says more"
        if state == LOADED:
            self._loaded[version] = registered
            logger.info("loaded the adapter %s from %s", name, registered.source)
        else:
            logger.warning("the adapter %s cannot be loaded: %s", name, state)
        self.states = {**self.states, version: state}

    def _announce(self) -> None:
        with contextlib.suppress(redis.RedisError):  # the leases announce it again
            self._worker.announce()

    def _settle(self, before: Collection[RunningJob] = (), registered: Sequence[RegisteredAdapter] = ()) -> None:
        """Begin or fail the waiting jobs for which that is decided.

        Args:
            before: jobs that waited before `registered` was read, so that it has their adapters, if Redis has them.
        """
        for job, since in list(self._waiting.items()):
            error = self._fault(job, since, registered if job in before else None)
            if self._stopping or (error is None and self._missing(job) and not job.cancel_requested):
                continue
            with self._lock:
                del self._waiting[job]
            if error is None or job.cancel_requested:
                self._worker.begin_claimed(job)
            else:
                self._worker.fail_claimed(job, error)

    def _fault(
        self, job: RunningJob, since: float, registered: Sequence[RegisteredAdapter] | None
    ) -> LLMAPIError | None:
        """Return why a job cannot have its adapters; None: it has them, or may still get them."""
        for use in self._missing(job):
            if reason := self.states.get(use.version):
                return AdapterUnavailable(f"its worker cannot load the adapter {use.name!r} ({reason}); load it again")
            if registered is not None and use.version not in {adapter.version for adapter in registered}:
                if not self._take_successor(job, use, registered):
                    reason = f"the adapter {use.name!r} is not loaded any more; choose another"
                    return InvalidRequest(reason, errors={"model": [reason]})
            elif time.monotonic() - since > WAIT_SECONDS:
                return AdapterUnavailable(
                    f"its worker has not loaded the adapter {use.name!r} within {WAIT_SECONDS:g} s; try again"
                )
        return None

    def _take_successor(self, job: RunningJob, use: AdapterUse, registered: Sequence[RegisteredAdapter]) -> bool:
        """Give a job without output the version in the place of its adapter. Returns False: there is none."""
        named = [adapter for adapter in registered if adapter.name == use.name]
        if not named or job.claim.published_tokens:
            return False
        others = [one for one in job.request.adapters if one is not use]
        job.use_adapters((*others, replace(use, version=named[0].version)))
        return True

    def _missing(self, job: RunningJob) -> list[AdapterUse]:
        return [use for use in job.request.adapters if use.version and self.states.get(use.version) != LOADED]
