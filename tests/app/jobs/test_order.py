"""The doorbell, compared with the message that Celery itself would send."""

import json

import redis

from app.jobs import keys
from app.jobs.order import TASK_NAME, doorbell, make_celery


def test_a_doorbell_is_stored_where_celerys_own_messages_are(redis_url: str) -> None:
    celery = make_celery(redis_url, "m")
    for priority in (0, 9):
        celery.send_task(TASK_NAME, ignore_result=True, priority=priority)
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        assert raw.keys("llm:jobs*") == [keys.doorbells("m")]


def test_a_doorbell_has_nothing_that_celerys_own_message_has_not(redis_url: str) -> None:
    celery = make_celery(redis_url, "m")
    celery.send_task(TASK_NAME, ignore_result=True)
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        theirs = json.loads(str(raw.rpop(keys.doorbells("m"))))
    ours = json.loads(doorbell("m"))
    assert ours.keys() == theirs.keys()
    for part in ("headers", "properties"):
        assert ours[part].keys() <= theirs[part].keys()
    assert ours["headers"]["task"] == theirs["headers"]["task"]
    assert ours["properties"]["delivery_info"] == theirs["properties"]["delivery_info"]


def test_a_doorbell_is_the_same_every_time() -> None:
    assert doorbell("m") == doorbell("m") != doorbell("n")
