"""Print what the service still waits for and, once it is ready, how to call it."""

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass

import redis

from app.access.authentication import is_key_configured
from app.access.secret import plain_key
from app.cli.redis_address import embedded_redis_url
from app.cli.run_url import find_url
from app.cli.status_line import TERMINAL
from app.cli.supervisor import say
from app.config.addresses import LOOPBACK_OF, service_url
from app.config.own_command import own_command
from app.config.settings import Config
from app.config.variables import PREFIX
from app.errors import ConfigError
from app.jobs.redis_client import connect
from app.jobs.worker_registry import prune_failures

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 10
_BAR_CELLS = 30
_SURE_SHARE = 0.02  # from this progress on, the time left is estimated


@dataclass(frozen=True, slots=True)
class Missing:
    """What the service lacks, "" for nothing. doing: of the worker that is furthest, and its progress, 0 to 1."""

    detail: str
    doing: str
    progress: float | None

    @property
    def is_nothing(self) -> bool:
        return not self.detail


def announce(config: Config, stopping: threading.Event) -> None:
    """Show what `/readyz` reports as missing, then how to use the service. End early once `stopping` is set.

    A terminal gets a bar while a model is downloaded or loaded, and a box at the end; anything else gets lines.
    """
    _forget_failures(config, stopping)
    last, estimate = "", TimeLeft()
    while not stopping.wait(_POLL_SECONDS):
        missing = _missing(config)
        if missing is None:
            continue
        if missing.is_nothing:
            TERMINAL.show("")
            say_ready(config)
            return
        if missing.progress is not None and sys.stdout.isatty():
            left = estimate.after(missing.progress, time.monotonic())
            TERMINAL.show(f"llm-api | {bar(missing.progress)} {missing.doing}{left}")
        elif missing.detail != last:
            TERMINAL.show("")
            say(f"waiting: {missing.detail}")
            last = missing.detail
    TERMINAL.show("")


def _forget_failures(config: Config, stopping: threading.Event) -> None:
    """Remove what workers reported before this start: it would be shown as the reason now.

    In a Redis of others only what those of this host reported.
    """
    host = socket.gethostname() if config.redis_url else None
    client = connect(config.redis_url or embedded_redis_url(config))
    while not stopping.wait(_POLL_SECONDS):
        with contextlib.suppress(redis.RedisError):  # it has not started yet
            prune_failures(client, config.model_name, host)
            break
    client.close()


def say_ready(config: Config) -> None:
    """Print a box on a terminal: rules above and below, and no lines at the sides, so that a command can be copied."""
    if not sys.stdout.isatty():
        say(ready_line(config))
        return
    url, rule = service_url(config.server.host, config.server.port), "─" * 18
    lines = {"page": url, "chat": _chat_command(url), "try": curl(config), "help": f"{url}/docs", "stop": "Ctrl-C"}
    TERMINAL.say("\n".join([
        f"{rule} LLM API is ready {rule}",
        *(f"  {name:<6}{value}" for name, value in lines.items()),
        "─" * (2 * len(rule) + len(" LLM API is ready ")),
    ]))  # fmt: skip


def ready_line(config: Config) -> str:
    """Return a line with a curl command to paste."""
    return f"ready: {service_url(config.server.host, config.server.port)}  try: {curl(config)}"


def curl(config: Config) -> str:
    """Return a command that asks for a key where one is configured, and never shows it."""
    key = " -H 'Authorization: Bearer YOUR_API_KEY'" if is_key_configured(config.auth) else ""
    body = json.dumps({"prompt": "The capital of France is"})
    url = service_url(config.server.host, config.server.port)
    return f"curl {url}/generate{key} -H 'Content-Type: application/json' -d '{body}'"


def bar(share: float) -> str:
    cells = round(share * _BAR_CELLS)
    return f"{'█' * cells}{'░' * (_BAR_CELLS - cells)} {share:4.0%}"


class TimeLeft:
    """How long it takes yet, from the progress since it was first seen."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def after(self, share: float, now: float) -> str:
        if self._first is None or share < self._first[0]:
            self._first = (share, now)
        done, passed = share - self._first[0], now - self._first[1]
        if done < _SURE_SHARE or passed < 1:
            return ""
        seconds = passed * (1 - share) / done
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


def _chat_command(url: str) -> str:
    """Return what to type in another terminal, which has no variables of ours: with the URL, unless it finds that."""
    plain = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    try:
        is_found = find_url(plain) == url
    except ConfigError:
        is_found = False
    return own_command("chat" if is_found else f"chat --url {url}")


def _missing(config: Config) -> Missing | None:
    """Return what the service lacks, None when the API does not respond."""
    key = plain_key(config.auth)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    host = LOOPBACK_OF.get(config.server.host, config.server.host)
    connection = http.client.HTTPConnection(host, config.server.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz", headers=headers)
        response = connection.getresponse()
        body = json.loads(response.read())
        if response.status == http.client.OK:
            return Missing("", "", None)
        loading = [(worker["progress"], worker["detail"]) for worker in body.get("workers", ()) if worker["progress"]]
        progress, doing = max(loading, default=(None, ""))
        return Missing(" ".join(body["detail"].split()), doing, progress)
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
