"""What this worker needs of Celery's consumer beyond its settings. Figures: docs/decisions/0002.

Celery runs the task in the consumer's own thread (pool `solo`): it only claims the job and begins it, and the batch
loop does the work. So it is the worker that counts how many jobs run, and says whether another may be fetched.

- A job that ends while every slot was taken turns the consumer's event loop, which then fetches the next.
- Queues are consumed with `no_ack` (the lease knows who has a job, not the broker), but Kombu 5.7 still asks Redis to
  forget an acknowledgement that was never owed: a round trip per job in the consumer's thread.
- Messages are ours and plain JSON: Kombu's reader calls a Python hook for each object in them, for types we never send.
"""

import json
import threading
from typing import Any

import kombu.transport.redis
from celery import Celery, bootsteps, signals
from kombu import serialization
from kombu.asynchronous import get_event_loop

from workers.worker import Worker


def adapt_consumer(celery: Celery, worker: Worker) -> None:
    """Make `celery`'s consumer in this process fetch jobs only while `worker` has room for one."""

    class Adapted(bootsteps.StartStopStep):
        """Runs again at every reconnect, which makes a new channel."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            qos = consumer.task_consumer.channel.qos
            qos.can_consume = worker.has_room
            qos.ack = _nothing

    celery.steps["consumer"].add(Adapted)
    worker.on_room = _turn_event_loop
    signals.worker_shutting_down.connect(_stop_at_once)
    kombu.transport.redis.loads = json.loads  # type: ignore[attr-defined]
    serialization.register("json", json.dumps, json.loads, "application/json", "utf-8")


def _stop_at_once(**_: object) -> None:
    """Told to stop, Celery's loop notices when it turns; else that is when the next message comes, which it would take.

    From another thread: a signal is handled in the loop's own, where the hub sees no need to wake itself.
    """
    threading.Thread(target=_turn_event_loop).start()


def _turn_event_loop() -> None:
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(_nothing)


def _nothing(*_: object) -> None:
    pass
