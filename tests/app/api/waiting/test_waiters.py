"""The subscription, over a Valkey that stops and starts again."""

import logging
import queue
import time
from pathlib import Path

import pytest
import redis

from app.api.waiting import waiters as waiting
from app.api.waiting.waiters import Waiter, Waiters
from app.jobs.events import FROM_START, EventEntry
from app.jobs.redis_client import connect
from app.jobs.store import JobStore
from tests.valkey import running_valkey
from tests.waiting import scaled, until


def test_messages_arrive_again_after_an_outage_which_is_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REREAD_SECONDS", 60.0)
    with running_valkey(tmp_path) as server, redis.Redis.from_url(server.url) as raw:
        client = connect(server.url)
        store = JobStore(client, model="m", ttl_seconds=60, max_queued=9)
        waiters = Waiters(server.url, client, store, max_requests=1)
        waiter = Waiter("j", FROM_START, queue.SimpleQueue())
        waiters.add(waiter)

        def event_comes(before: str, event_id: str) -> None:
            until(lambda: raw.pubsub_numsub(waiters.channel)[0][1])
            raw.publish(waiters.channel, f'j {before} {event_id} delta {{"text": "{event_id}"}}')
            _, entry = waiter.inbox.get(timeout=scaled(5))
            assert isinstance(entry, EventEntry) and entry.id == event_id

        with waiters.admit_request(), caplog.at_level(logging.WARNING):
            event_comes(FROM_START, "1-0")
            server.kill()
            time.sleep(1.2)  # it has tried to reconnect more than once
            server.start()
            event_comes("1-0", "2-0")
        waiters.close()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["lost the connection to Redis"]
    assert str(server.port) not in caplog.text
