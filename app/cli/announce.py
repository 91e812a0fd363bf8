"""Print what the service still waits for and, once it is ready, how to call it."""

import http.client
import json
import threading

from app.access.authentication import is_key_configured
from app.access.secret import plain_key
from app.cli.supervisor import say
from app.config.addresses import ALL, ALL_IPV4, LOCALHOST, with_port
from app.config.settings import Config

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 10
_LOOPBACK = {ALL_IPV4: "127.0.0.1", ALL: "::1"}


def announce(config: Config, stopping: threading.Event) -> None:
    """Print each change of what `/readyz` reports as missing, then the ready line. End early once `stopping` is set."""
    last = None
    while not stopping.wait(_POLL_SECONDS):
        missing = _missing(config)
        if missing == "":
            say(ready_line(config))
            return
        if missing and missing != last:
            say(f"waiting: {missing}")
            last = missing


def ready_line(config: Config) -> str:
    """Return a line with a curl command to paste. It asks for a key where one is configured, and never shows it."""
    url = service_url(config)
    key = " -H 'Authorization: Bearer YOUR_API_KEY'" if is_key_configured(config.auth) else ""
    body = json.dumps({"prompt": "The capital of France is"})
    return f"ready: {url}  try: curl {url}/generate{key} -H 'Content-Type: application/json' -d '{body}'"


def service_url(config: Config) -> str:
    """Return the address at which this machine reaches the service."""
    host = LOCALHOST if config.server.host in _LOOPBACK else config.server.host
    return f"http://{with_port(host, config.server.port)}"


def _missing(config: Config) -> str | None:
    """Return what the service lacks: "" when it is ready, None when the API does not respond."""
    key = plain_key(config.auth)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    host = _LOOPBACK.get(config.server.host, config.server.host)
    connection = http.client.HTTPConnection(host, config.server.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz", headers=headers)
        response = connection.getresponse()
        body = response.read()
        return "" if response.status == http.client.OK else " ".join(json.loads(body)["detail"].split())
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
