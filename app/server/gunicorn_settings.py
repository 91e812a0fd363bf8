"""gunicorn's settings: `gunicorn -c python:app.server.gunicorn_settings app.server.wsgi:app`."""

import gc
import logging
import sys
from typing import Any

import app.server.metrics_folder

# isort: split
import app.api.application  # noqa: F401 - loaded once, before the fork: half the start, and memory the processes share
from app.access.key_check import require_key, warnings
from app.config.addresses import addresses_of, with_port
from app.config.counted import counted
from app.config.loader import load_config, redis_url_of
from app.config.log import set_up_log
from app.config.open_files import raise_open_file_limit
from app.config.startup import give_up
from app.errors import StartupError
from app.freed_memory import give_back_after, keep_little
from app.server import request_log
from app.server.gunicorn_worker import SPARE_CONNECTIONS
from app.server.uploads import upload_threads

SWITCH_SECONDS = 0.0005  # between Python threads, instead of 5 ms; figures in docs/decisions/0002
_GC_ALLOCATIONS = 20_000

try:
    _config = load_config()
    redis_url_of(_config)
    require_key(_config)
    _server = _config.server
except StartupError as error:
    sys.exit(give_up(error))

set_up_log(_config.log, libraries=logging.WARNING)
keep_little()
raise_open_file_limit()
_addresses = addresses_of(_server.host)
bind = [with_port(address, _server.port) for address in _addresses]
_shown = " and ".join(bind)
if _server.health_port is not None:
    bind.append(with_port(_addresses[0], _server.health_port))  # `app.server.gunicorn_worker` takes the last one
workers = _server.processes
worker_class = "app.server.gunicorn_worker.GunicornWorker"  # gthread with additions
threads = _server.threads
# At this number gunicorn stops accepting: what the worker holds is below it, the rest waits for a thread.
worker_connections = SPARE_CONNECTIONS + 2 * (_server.threads + upload_threads(_server.threads))
control_socket_disable = True
# A proxy on this machine may say that its client used TLS. It may pass on the other headers from its clients.
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
forwarder_headers = ""
preload_app = False  # the threads that `app.server.wsgi` starts would not survive the fork
backlog = 2048
keepalive = 30  # seconds; above the pauses of a client that polls
graceful_timeout = 10  # seconds, below `app.cli.programs.API_GRACE_SECONDS`
loglevel = _config.log.level if _config.log.level != "info" else "warning"  # gunicorn's own starts are no news
logger_class = "app.server.gunicorn_log.GunicornLog"
accesslog = None


def when_ready(server: Any) -> None:
    size = f"{counted(workers, 'process', 'processes')} of {counted(threads, 'thread')}"
    _announce(logging.INFO, f"listening on {_shown} with {size}")
    for line in warnings(_config):
        _announce(logging.WARNING, line)


def _announce(level: int, line: str) -> None:
    """Write a line for the person who starts the service, at any `log.level`; as JSON where the log is."""
    if _config.log.format == "json":
        logging.getLogger("app.server").log(level, line)
    else:
        sys.stderr.write(f"api: WARNING: {line}\n" if level == logging.WARNING else f"api: {line}\n")


def post_fork(server: Any, worker: Any) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what is loaded stays: the collector need not visit it again and again
    gc.set_threshold(_GC_ALLOCATIONS)


def post_request(worker: Any, request: Any, environ: dict[str, Any], response: Any) -> None:
    request_log.record(environ, response)
    give_back_after(environ)
