"""The health check of a Valkey that is killed, stopped, slow, or answers with errors."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.api.redis_health import PING_SECONDS, RedisAway, RedisHealth, _WatchedPool
from app.api.request_context import services_of
from app.config.settings import Config
from app.jobs.redis_client import RedisClient, connect
from tests.app.api.conftest import MakeApp
from tests.grumbling_redis import grumbling_redis
from tests.valkey import Valkey, running_valkey
from tests.waiting import scaled, until

NOTICED_SECONDS = 5.0  # half a second to the first ping, two pings of a second, and a busy machine
BACK_SECONDS = 2.0
AT_ONCE_SECONDS = 0.5  # a time-out takes 5 s
ANSWER_SECONDS = 3.0  # instead of 5, to save time


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path) as server:
        yield server


@pytest.fixture
def watch(server: Valkey) -> Iterator[RedisHealth]:
    watch = RedisHealth(server.url)
    watch.start()
    yield watch
    watch.close()


def seconds_to_refusal(watch: RedisHealth) -> float:
    started = time.monotonic()
    with pytest.raises(RedisAway):
        watch.client().get("anything")
    return time.monotonic() - started


def test_a_redis_that_falls_silent_is_away_at_once_for_all_later_calls(server: Valkey, watch: RedisHealth) -> None:
    client = connect(server.url, reply_seconds=ANSWER_SECONDS, pool=_WatchedPool, watch=watch)
    client.set("answer", "42")
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    failed_after: list[float] = []
    surprised = threading.Thread(target=lambda: failed_after.append(_seconds_to_failure(client)))
    surprised.start()
    until(lambda: watch.is_away, NOTICED_SECONDS)
    assert seconds_to_refusal(watch) < AT_ONCE_SECONDS
    surprised.join()
    assert failed_after[0] < 1.5 * ANSWER_SECONDS, "no second try of a Redis known to be away"
    server.process.send_signal(signal.SIGCONT)
    until(lambda: not watch.is_away, BACK_SECONDS)
    assert client.get("answer") == "42"


def _seconds_to_failure(client: RedisClient) -> float:
    started = time.monotonic()
    with pytest.raises(redis.RedisError):
        client.get("answer")
    return time.monotonic() - started


def test_a_redis_that_is_killed_is_away_until_it_is_back_and_two_log_lines_report_it(
    server: Valkey, watch: RedisHealth, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        watch.client().set("answer", "42")
        server.kill()
        until(lambda: watch.is_away, NOTICED_SECONDS)
        assert seconds_to_refusal(watch) < AT_ONCE_SECONDS
        server.start()
        until(lambda: not watch.is_away, BACK_SECONDS)
    assert watch.client().get("answer") == "42"
    gone, back = (record.getMessage() for record in caplog.records)
    assert gone == "Redis does not answer (ConnectionError): requests get 503 until it does"
    assert back == "Redis answers again"


def test_a_redis_that_is_busy_for_a_moment_is_not_away(server: Valkey, watch: RedisHealth) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.ping()
        raw.execute_command("CLIENT", "PAUSE", "1300", "ALL")
        deadline = time.monotonic() + scaled(2.2)
        while time.monotonic() < deadline:
            assert not watch.is_away
            time.sleep(0.01)
        assert watch._silent_pings == 0


@pytest.mark.parametrize(
    "error", ["LOADING Valkey is loading the dataset in memory", "NOAUTH Authentication required."]
)
def test_a_redis_that_answers_with_an_error_is_not_away(error: str) -> None:
    with grumbling_redis(error) as url:
        watch = RedisHealth(url)
        for _ in range(3):
            with pytest.raises(redis.RedisError) as raised:
                watch.client().ping()
            watch._note(raised.value)
    assert not watch.is_away


def test_a_process_that_was_stopped_does_not_count_redis_as_away(server: Valkey) -> None:
    code = f"""
import time
from app.api import redis_health
redis_health.SILENT_PINGS = 1
redis_health.RedisHealth({server.url!r}).start()
print("started", flush=True)
time.sleep(60)
"""
    with (
        redis.Redis.from_url(server.url) as raw,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        until(lambda: len(raw.client_list()) == 2)  # it has begun to ping
        raw.execute_command("CLIENT", "PAUSE", "750", "ALL")
        time.sleep(0.6)  # a ping is under way, which Redis answers soon
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.1)  # longer than it waits for an answer
        process.send_signal(signal.SIGCONT)
        time.sleep(0.6)
        process.terminate()
        assert process.stdout.read() == b"", "a process that counts Redis as away logs it"


def test_a_caller_that_waits_for_a_connection_is_refused_too(server: Valkey) -> None:
    watch = RedisHealth(server.url)
    client = watch.client()
    pool = client.connection_pool  # type: ignore[attr-defined]
    taken = [pool.get_connection() for _ in range(pool.max_connections)]
    refused = threading.Event()

    def wait() -> None:
        with pytest.raises(RedisAway):
            client.ping()
        refused.set()

    threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.1)
    watch.is_away = True
    pool.release(taken[0])
    assert refused.wait(scaled(2))
    watch.is_away = False
    for connection in taken[1:]:
        pool.release(connection)
    assert client.ping()
    client.close()


def test_while_redis_is_away_requests_get_503_at_once_and_health_checks_200(
    make_app: MakeApp, config: Config, server: Valkey
) -> None:
    app = make_app(replace(config, redis_url=server.url))
    client = app.test_client()
    services_of(app).redis_health.is_away = True
    job = "/jobs/00000000-0000-4000-8000-000000000000"
    started = time.monotonic()
    for method, path in (
        ("POST", "/generate"),
        ("POST", "/agenerate"),
        ("POST", "/embeddings"),
        ("GET", job),
        ("GET", f"{job}/events"),
        ("GET", "/jobs"),
        ("DELETE", job),
        ("GET", "/readyz"),
        ("GET", "/v1/models"),
    ):
        body = {"prompt": "p", "text": "t", "stream": True} if method == "POST" else None
        if path == "/embeddings":
            body = {"text": "t"}
        refused = client.open(path, method=method, json=body)
        assert refused.status_code == 503, path
        assert int(refused.headers["Retry-After"]) > 0
        assert "Redis does not answer" in refused.text
    assert [client.get(path).status_code for path in ("/healthz", "/check", "/openapi.json")] == [200] * 3
    assert time.monotonic() - started < scaled(2)
    assert services_of(app).jobs.waiters._requests == 0


def test_while_no_command_is_sent_pings_are_rare_and_the_next_command_starts_one(
    server: Valkey, watch: RedisHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.redis_health.IDLE_PING_SECONDS", 1000.0)
    client, counts = watch.client(), connect(server.url)
    client.ping()

    def pings() -> int:
        calls: int = counts.execute_command("INFO", "commandstats").get("cmdstat_ping", {}).get("calls", 0)
        return calls

    def are_rare() -> bool:
        before = pings()
        time.sleep(2 * PING_SECONDS)
        return pings() == before

    until(are_rare)
    before = pings()
    client.get("anything")
    until(lambda: pings() > before)
