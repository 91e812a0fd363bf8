"""Celery's side of the order of waiting jobs: the doorbell. `lua/order.lua` decides the order.

The order is in Redis, in sorted sets of each model (`app.jobs.keys`). Celery's queue carries no job: each message is
the same doorbell, "there is work for this model", and a worker that receives it claims the first job of the order
(`JobStore.claim`). An extra doorbell costs one empty claim. The reaper keeps as many doorbells as waiting jobs
(docs/decisions/0031-one-order-of-jobs.md).
"""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu import Queue

from app.jobs.keys import PREFIX

TASK_NAME = "llm_api.claim"

TRANSPORT_OPTIONS: dict[str, Any] = {
    "global_keyprefix": PREFIX,
    "priority_steps": [0],  # one list: Celery's priorities are not used
    "visibility_timeout": 60,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "health_check_interval": 10,
    "polling_interval": 2,  # seconds of one BRPOP: an idle consumer wakes so often
}


def queue_name(model: str) -> str:
    """Return the name of the model's Celery queue; its Redis list is `keys.doorbells(model)`."""
    return f"jobs.{model}"


def make_celery(redis_url: str, model: str) -> Celery:
    """Return a Celery application for one model's queue. Reasons for the settings: docs/decisions/0002, 0031."""
    celery = Celery("llm_api", broker=_broker_url(redis_url))
    name = queue_name(model)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_queues=[Queue(name, no_ack=True)],  # the lease, not the broker, records which worker has a job
        task_default_queue=name,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_soft_shutdown_timeout=0,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=TRANSPORT_OPTIONS,
    )
    return celery


def _broker_url(redis_url: str) -> str:
    """Return a URL as Kombu spells it, which has another scheme and another name of the database for Unix sockets."""
    url = urlsplit(redis_url)
    if url.scheme != "unix":
        return redis_url
    database = parse_qs(url.query).get("db", ["0"])[0]
    return f"redis+socket://{url.netloc}{url.path}?virtual_host={database}"


def doorbell(model: str) -> str:
    """Return the message that the scripts push onto the model's list, as Kombu's Redis transport reads it.

    Source: https://docs.celeryq.dev/en/stable/internals/protocol.html (version 2). The body is empty: the worker's task
    strategy (`workers.celery_consumer`) never decodes it.
    """
    return json.dumps(
        {
            "body": "",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": TASK_NAME, "id": "doorbell"},
            "properties": {
                "delivery_tag": "doorbell",
                "delivery_info": {"exchange": "", "routing_key": queue_name(model)},
            },
        },
        separators=(",", ":"),
    )
