"""Celery messages made from a template, against those that Celery itself puts on a real broker."""

import base64
import json
from typing import Any

import redis

from app.jobs.job import Priority
from app.jobs.order import TASK_NAME, Queues, make_celery

PER_MESSAGE = {"id", "root_id", "correlation_id", "delivery_tag", "reply_to"}
LEFT_OUT = {"argsrepr", "kwargsrepr", "origin", "timelimit"}


def sent_by_celery(redis_url: str, priority: Priority) -> tuple[str, dict[str, Any]]:
    """The list and the message after `send_task`."""
    celery = make_celery(redis_url, "m")
    celery.send_task(TASK_NAME, args=["the-job"], ignore_result=True, priority=priority.step)
    with redis.Redis.from_url(redis_url, decode_responses=True) as raw:
        (key,) = raw.keys("llm:jobs.m*")
        return key, json.loads(raw.rpop(key))


def without(message: dict[str, Any]) -> dict[str, Any]:
    return {
        name: without(value) if isinstance(value, dict) else value
        for name, value in message.items()
        if name not in PER_MESSAGE
    }


def test_our_message_is_what_send_task_would_have_sent(redis_url: str) -> None:
    for priority in Priority:
        queues = Queues(make_celery(redis_url, "m"))
        ours = json.loads(queues.message("the-job", priority))
        key, theirs = sent_by_celery(redis_url, priority)
        assert queues.list_key(priority) == key
        assert json.loads(base64.b64decode(ours["body"])) == json.loads(base64.b64decode(theirs["body"]))
        theirs["headers"] = {n: value for n, value in theirs["headers"].items() if value and n not in LEFT_OUT}
        assert without(ours) == without(theirs)


def test_every_message_has_its_own_ids(redis_url: str) -> None:
    queues = Queues(make_celery(redis_url, "m"))
    message = json.loads(queues.message("the-job", Priority.LOW))
    assert message["headers"]["id"] == message["properties"]["delivery_tag"] == "the-job"
    assert message["headers"]["root_id"] == message["properties"]["correlation_id"] == "the-job"
