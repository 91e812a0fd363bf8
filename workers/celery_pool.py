"""What this worker needs of Celery beyond its settings: a free thread wakes the consumer, and nothing is acknowledged.

With `worker_disable_prefetch` the consumer looks for a free thread only when its event loop turns. Celery's own task
events turn it, at three published messages per job; a byte through a pipe turns it for microseconds.

Queues are consumed with `no_ack` (the lease knows who has a job, not the broker), but Kombu 5.7 still asks Redis to
forget an acknowledgement that was never owed: a round trip per job in the consumer's thread, a fifth of its time.
"""

import contextlib
import os
import threading
from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool


class WakingPool(TaskPool):
    """A thread pool that writes one byte to `wake` when all its threads were busy and one becomes free."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.woken, self.wake = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(self.wake, False)
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
        if was_full:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self.wake, b"\0")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.woken, 4096):
                pass


class LeanConsumer(bootsteps.StartStopStep):
    """Puts the pool's pipe into the consumer's event loop and drops acknowledgements; runs again at every reconnect."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        consumer.hub.add_reader(consumer.pool.woken, consumer.pool.drain)
        consumer.task_consumer.channel.qos.ack = _nothing_to_acknowledge


def _nothing_to_acknowledge(delivery_tag: str) -> None:
    pass
