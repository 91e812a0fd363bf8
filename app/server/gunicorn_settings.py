"""gunicorn's settings: `gunicorn -c python:app.server.gunicorn_settings app.server.wsgi:app`."""

import gc
import sys
from typing import Any

import app.api.application  # noqa: F401 - loaded once, before the fork: half the start, and memory the processes share
from app.api.services import services_of
from app.config.loader import load_config
from app.errors import StartupError
from app.server.shutdown import Shutdown

_CONFIGURATION_FAULT = 78  # EX_CONFIG of sysexits.h: starting again is no use
SWITCH_SECONDS = 0.0005  # between Python threads, instead of 5 ms; figures in docs/decisions/0002
_GC_ALLOCATIONS = 20_000
_SPARE_CONNECTIONS = 512  # kept alive without a thread

try:
    _server = load_config().server
except StartupError as error:
    sys.stderr.write(f"{error.detail}\n")
    sys.exit(_CONFIGURATION_FAULT)

bind = f"{_server.host}:{_server.port}" if ":" not in _server.host else f"[{_server.host}]:{_server.port}"
workers = _server.processes
worker_class = "app.server.gunicorn_worker.LingeringThreadWorker"  # gthread; docs/decisions/0009
threads = _server.threads
worker_connections = _server.threads + _SPARE_CONNECTIONS
control_socket_disable = True
preload_app = False  # the threads that `app.server.wsgi` starts would not survive the fork
backlog = 2048
keepalive = 30  # seconds; above the pauses of a client that polls
graceful_timeout = 10  # seconds, below `app.cli.supervision.API_GRACE_SECONDS`; who still waits then hears it before
loglevel = "warning"
accesslog = None


def when_ready(server: Any) -> None:
    sys.stderr.write(f"api: {workers} processes of {threads} threads listen on {bind}\n")


def post_fork(server: Any, worker: Any) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what is loaded stays: the collector need not look at it again and again
    gc.set_threshold(_GC_ALLOCATIONS)


def post_worker_init(worker: Any) -> None:
    worker.farewell = Shutdown(worker, services_of(worker.wsgi).waiters)
    worker.farewell.start()


def worker_int(worker: Any) -> None:
    """Runs in a signal handler."""
    if hasattr(worker, "farewell"):
        worker.farewell.at_once = True
