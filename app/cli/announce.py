"""Tells the terminal of `make run` what the service still waits for and, once it is ready, how to call it."""

import http.client
import json
import sys
import time

from app.config.loader import load_config
from app.config.settings import Config

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 10
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def announce(config: Config) -> None:
    """Returns after the ready line; until then one line for each change of what `/readyz` says is missing."""
    last = ""
    while (missing := _missing(config)) is None or missing:
        if missing and missing != last:
            _say(f"waiting: {missing}")
            last = missing
        time.sleep(_POLL_SECONDS)
    _say(ready_line(config))


def ready_line(config: Config) -> str:
    """With a curl that can be pasted; a configured key is asked for and never shown."""
    host = "localhost" if config.server.host in _EVERY_ADDRESS else config.server.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"
    key = " -H 'Authorization: Bearer YOUR_API_KEY'" if config.auth.api_keys else ""
    body = json.dumps({"prompt": "The capital of France is"})
    return f"ready: {url}  try: curl {url}/generate{key} -H 'Content-Type: application/json' -d '{body}'"


def _missing(config: Config) -> str | None:
    """What the service lacks, "" when it is ready, None while it gives no answer."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.server.host, config.server.host)  # noqa: S104
    headers = {"Authorization": f"Bearer {config.auth.api_keys[0]}"} if config.auth.api_keys else {}
    connection = http.client.HTTPConnection(host, config.server.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz", headers=headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return "" if response.status == http.client.OK else _reason(body, response.status)


def _reason(body: bytes, status: int) -> str:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return " ".join(str(detail).split()) if detail else f"/readyz answers {status}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    announce(load_config())
