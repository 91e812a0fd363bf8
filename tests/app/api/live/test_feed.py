import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.api.live.feed import PERIOD_SECONDS, Feed


def test_many_streams_share_one_reading_per_period() -> None:
    readings = 0

    def read() -> int:
        nonlocal readings
        readings += 1
        return readings

    feed = Feed(read)

    def watch(_: int) -> list[object]:
        number, seen = 0, []
        for _ in range(3):
            number, reading = feed.next(number)
            seen.append(reading)
        return seen

    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(watch, range(16))) == [[1, 2, 3]] * 16
    assert readings == 3
    assert time.monotonic() - started >= 2 * PERIOD_SECONDS


def test_who_comes_after_a_pause_gets_no_old_reading() -> None:
    values = iter(["old", "new"])
    feed = Feed(lambda: next(values))
    assert feed.next(0) == (1, "old")
    time.sleep(PERIOD_SECONDS)
    assert feed.next(0) == (2, "new")


def test_a_failure_of_redis_reaches_all_and_the_next_reading_is_tried_in_time() -> None:
    tries = 0

    def read() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise redis.ConnectionError("away")
        return "back"

    feed = Feed(read)
    with ThreadPoolExecutor(2) as pool:
        outcomes = [future.result() for future in [pool.submit(feed.next, 0), pool.submit(feed.next, 0)]]
    assert all(isinstance(outcome, redis.ConnectionError) for _, outcome in outcomes) and tries == 1
    assert feed.next(1) == (2, "back")


def test_after_another_failure_the_others_are_not_left_waiting() -> None:
    is_first = threading.Event()

    def read() -> str:
        if not is_first.is_set():
            is_first.set()
            raise ValueError("a fault in the code")
        return "read"

    feed = Feed(read)
    with pytest.raises(ValueError):
        feed.next(0)
    assert feed.next(0) == (1, "read")
