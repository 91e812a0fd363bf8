"""Redis is killed or falls silent under a running service, and comes back."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from tests.app.api.sse_reading import parse
from tests.stack import Stack, engine_config, running_stack
from tests.valkey import Valkey, running_valkey
from tests.waiting import scaled, until

TOKENS = 60
STEP_SECONDS = 0.03  # the jobs outlast the death of Redis, and end while it is silent
SILENCE_SECONDS = 3.0  # half a second to the first ping, two pings of a second each, and a margin
AT_ONCE_SECONDS = 1.5  # on a busy machine; a time-out takes 5 s
BACK_SECONDS = 2.0


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stack]:
    config = engine_config("slow:Slow", model_params={"step_seconds": STEP_SECONDS}, server={"processes": 1})
    with running_stack(tmp_path_factory.mktemp("stack"), valkey.url, config) as stack:
        yield stack


def kill(server: Valkey) -> Callable[[], None]:
    with redis.Redis.from_url(server.url) as raw:
        raw.set("last", "write")
        raw.execute_command("WAITAOF", 1, 0, 5000)
    server.kill()
    return server.start


def silence(server: Valkey) -> Callable[[], None]:
    process = server.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    time.sleep(SILENCE_SECONDS)
    return lambda: process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("take_away", [kill, silence])
def test_new_requests_get_503_at_once_and_those_that_wait_get_their_answers_later(
    stack: Stack, valkey: Valkey, take_away: Callable[[Valkey], Callable[[], None]]
) -> None:
    def post(path: str, **more: Any) -> httpx.Response:
        body = {"prompt": "p", "params": {"max_tokens": TOKENS}, **more}
        return httpx.post(f"{stack.url}{path}", json=body, timeout=scaled(30))

    def seconds_to_refusal() -> float:
        started = time.monotonic()
        refused = post("/generate")
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        return time.monotonic() - started

    def statuses() -> list[str]:
        return [job["status"] for job in httpx.get(f"{stack.url}/jobs", timeout=scaled(5)).json()["data"]]

    with ThreadPoolExecutor() as clients:
        waiting, streaming = clients.submit(post, "/generate"), clients.submit(post, "/agenerate", stream=True)
        until(lambda: statuses()[:2] == ["processing"] * 2)
        give_back = take_away(valkey)
        try:
            assert max(seconds_to_refusal() for _ in range(5)) < scaled(AT_ONCE_SECONDS)
            assert {
                httpx.get(f"{stack.url}{path}", timeout=scaled(5)).status_code for path in ("/healthz", "/check")
            } == {200}
        finally:
            give_back()
        until(lambda: httpx.get(f"{stack.url}/jobs", timeout=scaled(5)).status_code == 200, BACK_SECONDS)
        assert waiting.result().json() == "tick " * TOKENS
        assert "".join(event.data for event in parse(streaming.result().text)) == "tick " * TOKENS
