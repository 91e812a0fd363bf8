"""Entry point of a worker process: `python -m workers.main`.

Loads the configuration, announces itself, loads the model, then lets Celery consume the model's queue while there is a
slot free. Exit code 78 (EX_CONFIG) means that a restart cannot help: the reason is on stderr, in one line, and in
`/readyz`. SIGTERM ends it after its running jobs, or `worker.drain_seconds`; SIGUSR2 does not wait for them.
"""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import uuid
import warnings

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from app.config.counted import counted
from app.config.loader import load_config, redis_url_of
from app.config.log import set_up_log
from app.config.settings import Config
from app.config.startup import give_up
from app.errors import StartupError
from app.jobs.ledger_limits import LedgerLimits
from app.jobs.order import make_celery
from app.jobs.reaper import Reaper
from app.jobs.redis_client import connect
from app.jobs.sharing import Sharing
from app.jobs.store import JobStore
from app.jobs.tracing import flush_traces, tracer_of
from workers import metrics
from workers.celery_consumer import adapt_consumer
from workers.engines.registry import load_runner
from workers.jobs.load_attempts import LoadAttempts
from workers.worker import Worker

SWITCH_SECONDS = 0.0005  # Python's 5 ms let one busy thread delay a dozen short ones; figures in docs/decisions/0002
GC_ALLOCATIONS = 20_000  # Celery makes cycles for every message; Python's 700 would look for them all the time

logger = logging.getLogger("workers")


def main() -> int:
    """Run a worker until it is stopped; returns the exit code."""
    hurry = threading.Event()
    _prepare_process()
    _end_by_signals(hurry)
    try:
        config, redis_url = _load_config()
        worker = _announced_worker(config, redis_url)
        _load_model(worker, config, LoadAttempts.of_model(connect(redis_url), config, worker.info.id))
    except StartupError as error:
        return give_up(error, "worker")
    _start_reaper(config, redis_url)
    if config.worker.metrics_port is not None:
        metrics.serve(lambda: worker.figures, config.server.host, config.worker.metrics_port)
    try:
        exit_code = _consume(make_celery(redis_url, config.model_name), worker)
        _finish_jobs(worker, config.worker.drain_seconds, hurry)
    finally:
        worker.close()
        flush_traces()
    return exit_code


def new_worker_id() -> str:
    """Return `<host>-<pid>-<random>`: `WorkerInfo.host` reads the host from it."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _prepare_process() -> None:
    warnings.simplefilter("ignore", SecurityWarning)  # of Celery as root, which is about pickle: we take JSON alone
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # about late acknowledgement, which we do not use
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries are for a terminal; progress is announced otherwise
    sys.setswitchinterval(SWITCH_SECONDS)


def _end_by_signals(hurry: threading.Event) -> None:
    def end_at_once(*_: object) -> None:
        hurry.set()
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, end_at_once)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while loading; process 1 of a container would ignore it


def _load_config() -> tuple[Config, str]:
    """Returns also the address of Redis."""
    config = load_config()
    set_up_log(config.log)
    redis_url = redis_url_of(config)
    if config.worker.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = config.worker.gpus  # before a model library is loaded, which reads it once
    return config, redis_url


def _announced_worker(config: Config, redis_url: str) -> Worker:
    client = connect(redis_url)
    store = JobStore(
        client,
        model=config.model_name,
        ttl_seconds=config.jobs.ttl,
        max_queued=config.jobs.max_queued,
        sharing=Sharing.of(config.jobs),
        ledger=LedgerLimits.of(config),
    )
    worker = Worker(config, client, store, new_worker_id())
    tracer = tracer_of(config, "llm-api-worker")
    if tracer is not None:
        from workers.jobs.job_traces import JobTraces

        worker.trace(JobTraces(tracer, model=config.model_name, worker_id=worker.info.id).job_ended)
    worker.announce_from_now()
    return worker


def _load_model(worker: Worker, config: Config, attempts: LoadAttempts) -> None:
    try:
        with attempts.counted():
            worker.serve(load_runner(config, worker.report_progress, worker))
    except StartupError as error:
        worker.give_up(error.detail, restart_helps=False)
        raise
    except Exception as error:
        reason = f"the engine failed while loading ({type(error).__name__}); the worker's log says more"
        worker.give_up(reason, restart_helps=True)
        raise
    gc.freeze()  # what is loaded stays: the collector need not look at it again and again
    gc.set_threshold(GC_ALLOCATIONS)


def _start_reaper(config: Config, redis_url: str) -> None:
    reaper = Reaper(
        connect(redis_url),
        model=config.model_name,
        ttl_seconds=config.jobs.ttl,
        max_attempts=config.jobs.max_attempts,
        sharing=Sharing.of(config.jobs),
        ledger=LedgerLimits.of(config),
    )
    reaper.start()


def _consume(celery: Celery, worker: Worker) -> int:
    """Run jobs until a signal comes; returns Celery's exit code."""
    adapt_consumer(celery, worker)
    signals.setup_logging.connect(_keep_logging)
    logging.getLogger("celery").setLevel(logging.WARNING)
    logging.getLogger("kombu").setLevel(logging.WARNING)
    of_tokens = f" of {worker.info.context_tokens} tokens" if worker.info.context_tokens else ""
    logger.info("ready: %s, %d slots%s", worker.info.model, worker.info.slots, of_tokens)
    consumer = celery.Worker(
        hostname=f"worker@{worker.info.id}",
        pool="solo",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    consumer.start()
    return int(consumer.exitcode or 0)


def _finish_jobs(worker: Worker, drain_seconds: int, hurry: threading.Event) -> None:
    if worker.active_jobs:
        logger.info("finishing %s, for %d s at most", counted(worker.active_jobs, "running job"), drain_seconds)
    if not worker.drain(drain_seconds, hurry):
        logger.info("returning %s to the queue", counted(worker.active_jobs, "job"))
        if not worker.hand_back():
            left = counted(worker.active_jobs, "job")
            logger.warning("leaving %s to other workers, once the leases have run out", left)


def _keep_logging(**_: object) -> None:
    """A receiver of `setup_logging` makes Celery leave logging as it is."""


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # model threads of a native library must not delay or break the exit
