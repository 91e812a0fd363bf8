"""The queue of a model: Celery's settings, one broker list per priority, and the messages that carry a job id.

The API does not call `send_task`: the message goes onto the broker's list inside the script that writes the job record
(`lua/admit.lua`), so that no crash can leave a job without its message, and a request costs one round trip instead of
three. The message is still made by Celery and Kombu: once, as a template (docs/decisions/0001).
"""

import base64
import json
from typing import Any

from celery import Celery
from kombu import Connection, Producer, Queue

from app.jobs.job import Priority
from app.jobs.keys import PREFIX

TASK_NAME = "llm_api.run_job"
PRIORITY_STEPS = [priority.step for priority in Priority]
SEPARATOR = ":"
_NEVER_READ = {"argsrepr", "kwargsrepr", "origin", "timelimit"}  # shown by monitors, or not set by us
_PLACEHOLDER = "00000000-0000-4000-8000-000000000000"

TRANSPORT_OPTIONS: dict[str, Any] = {
    "global_keyprefix": PREFIX,
    "sep": SEPARATOR,
    "priority_steps": PRIORITY_STEPS,
    "queue_order_strategy": "priority",
    "visibility_timeout": 60,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "health_check_interval": 10,
}


def queue_name(model: str) -> str:
    return f"jobs.{model}"


def make_celery(redis_url: str, model: str) -> Celery:
    """A Celery application for one model's queue. Reasons for the settings: design and docs/decisions/0001, 0002."""
    celery = Celery("llm_api", broker=redis_url)
    name = queue_name(model)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_queues=[Queue(name, no_ack=True)],  # the lease, not the broker, knows who has a job
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


class Queues:
    """Where a job's message goes and what it says."""

    def __init__(self, celery: Celery) -> None:
        self._name = celery.conf.task_default_queue
        self._templates = {priority: _template(celery, self._name, priority) for priority in Priority}

    def list_key(self, priority: Priority) -> str:
        """The broker's Redis list for this priority, as `kombu.transport.redis` names it."""
        suffix = f"{SEPARATOR}{priority.step}" if priority.step else ""
        return f"{PREFIX}{self._name}{suffix}"

    def message(self, job_id: str, priority: Priority) -> str:
        """The Celery message (protocol 2) whose task carries `job_id` and nothing else."""
        envelope, body = self._templates[priority]
        encoded = base64.b64encode(body.replace(_PLACEHOLDER, job_id).encode()).decode()
        return envelope.replace(_PLACEHOLDER, job_id).replace('"@body"', f'"{encoded}"')


def _template(celery: Celery, queue: str, priority: Priority) -> tuple[str, str]:
    """One real message as Celery and Kombu build it, caught before it reaches a broker: (envelope, body)."""
    caught: list[dict[str, Any]] = []
    with Connection("memory://") as connection:
        channel = connection.channel()
        channel._put = lambda _queue, message, **_: caught.append(message)  # type: ignore[attr-defined]
        message = celery.amqp.create_task_message(_PLACEHOLDER, TASK_NAME, args=[_PLACEHOLDER], ignore_result=True)
        celery.amqp.send_task_message(
            Producer(channel), TASK_NAME, message, exchange="", routing_key=queue, serializer="json",
            priority=priority.step, declare=[],
        )  # fmt: skip
    (envelope,) = caught
    body = base64.b64decode(envelope["body"]).decode()
    envelope["body"] = "@body"
    envelope["properties"]["delivery_tag"] = _PLACEHOLDER
    envelope["properties"]["delivery_info"]["routing_key"] = queue  # where a worker that stops puts a message back
    headers = envelope["headers"]
    # The worker reads every message through a Python hook per object: what says nothing is left out.
    envelope["headers"] = {name: value for name, value in headers.items() if value and name not in _NEVER_READ}
    return json.dumps(envelope), body
