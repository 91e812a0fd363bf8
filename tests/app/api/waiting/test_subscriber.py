"""The subscription, against a Valkey of its own that comes and goes."""

import logging
import queue
import time
from pathlib import Path

import pytest
import redis

from app.api.waiting.subscriber import Subscriber
from app.jobs import keys
from tests.valkey import running_valkey
from tests.waiting import until


def test_hints_are_heard_again_after_an_outage_of_which_one_line_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    rereads: list[float] = []
    with running_valkey(tmp_path) as server, redis.Redis.from_url(server.url) as raw:
        hints = Subscriber(server.url, take=lambda hint, _: heard.put(hint), reread=lambda _: rereads.append(0))
        hints.start()
        hints.start()
        until(lambda: rereads)
        raw.publish(keys.NOTIFICATIONS_CHANNEL, "one")
        assert heard.get(timeout=5) == "one"
        with caplog.at_level(logging.WARNING):
            server.kill()
            before = len(rereads)
            time.sleep(1.2)  # it has tried to come back more than once
            server.start()
            until(lambda: len(rereads) > before)
        raw.publish(keys.NOTIFICATIONS_CHANNEL, "two")
        assert heard.get(timeout=5) == "two"
        hints.close()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["lost the connection to Redis"]
    assert str(server.port) not in caplog.text
