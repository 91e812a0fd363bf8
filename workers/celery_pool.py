"""What this worker needs of Celery beyond its settings. Figures: docs/decisions/0002.

- With `worker_disable_prefetch` the consumer looks for a free thread only when its event loop turns: a thread that
  becomes free after all were busy turns it. (Celery's task events do so too, at three published messages per job.)
- Queues are consumed with `no_ack` (the lease knows who has a job, not the broker), but Kombu 5.7 still asks Redis to
  forget an acknowledgement that was never owed: a round trip per job in the consumer's thread.
- Messages are ours and plain JSON: Kombu's reader calls a Python hook for each object in them, for types we never send.
"""

import json
import threading
from typing import Any

import kombu.transport.redis
from celery import bootsteps
from celery.concurrency.thread import TaskPool
from kombu import serialization
from kombu.asynchronous import get_event_loop


class WakingPool(TaskPool):
    """A thread pool that turns the consumer's event loop when all its threads were busy and one becomes free."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._busy = 0
        self._counting = threading.Lock()

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        with self._counting:
            self._busy += 1
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(lambda _: self._free())
        return result

    def _free(self) -> None:
        with self._counting:
            was_full = self._busy >= self.limit
            self._busy -= 1
        hub = get_event_loop() if was_full else None
        if hub is not None:
            hub.call_soon(_nothing)


class LeanConsumer(bootsteps.StartStopStep):
    """Drops acknowledgements; runs again at every reconnect, which makes a new channel."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        consumer.task_consumer.channel.qos.ack = _nothing


def read_plain_json() -> None:
    """Read messages with the standard library's reader, in this process."""
    kombu.transport.redis.loads = json.loads  # type: ignore[attr-defined]
    serialization.register("json", json.dumps, json.loads, "application/json", "utf-8")


def _nothing(*_: object) -> None:
    pass
