"""Handles doorbells in a worker's Celery consumer: each claims the first waiting job.

A doorbell (`app.jobs.order`) is a Celery message that carries no job. The task replaces Celery's *strategy*, the
function that handles a received message. It calls `Worker.claim_next` in the consumer's thread: no task request, pool
or acknowledgement. The batch loop runs the jobs; the worker counts them and decides whether another doorbell may be
fetched (docs/decisions/0002, 0031).
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, Task, bootsteps, signals

from app.jobs.order import TASK_NAME
from workers.stall_watch import TURN_SECONDS
from workers.worker import Worker

logger = logging.getLogger(__name__)


def adapt_consumer(celery: Celery, worker: Worker) -> None:
    """Have the consumer of this process claim jobs for `worker`, and fetch doorbells only while it has a free slot."""

    loop = _EventLoop()

    def claim_next(*_: object) -> None:
        try:
            worker.claim_next()
        except Exception:  # else Celery's event loop would end, and the worker with it
            logger.exception("a job was claimed and could not be started; another worker takes it over")

    def strategy(*_: object, **__: object) -> Callable[..., None]:
        return claim_next

    class Doorbell(Task):  # type: ignore[type-arg]
        name = TASK_NAME
        Strategy = staticmethod(strategy)  # type: ignore[assignment]  # "or the qualified name of one", says Celery's reference

    class FetchOnFreeSlot(bootsteps.StartStopStep):
        """Started again at every reconnect, because each makes a new channel."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        turns: Any = None

        def start(self, consumer: Any) -> None:
            consumer.task_consumer.channel.qos.can_consume = worker.has_room
            loop.hub = consumer.hub
            self.turns = consumer.hub.call_repeatedly(TURN_SECONDS, worker.consumer_turned)

        def stop(self, consumer: Any) -> None:
            if self.turns is not None:
                self.turns.cancel()

    celery.register_task(Doorbell())
    celery.steps["consumer"].add(FetchOnFreeSlot)
    worker.on_slot_free = loop.wake
    signals.worker_shutting_down.connect(loop.stop_at_once, weak=False)


class _EventLoop:
    """Celery's event loop, whose `hub` is known once a consumer has started.

    kombu's `get_event_loop` returns None after the first reconnect, though the hub is the same.
    """

    hub: Any = None

    def wake(self) -> None:
        if self.hub is not None:
            self.hub.call_soon(_nothing)

    def stop_at_once(self, **_: object) -> None:
        """Wake it, so that it sees the shutdown before it takes another doorbell.

        From another thread: the signal is handled in the loop's own thread, where the hub does not wake itself.
        """
        threading.Thread(target=self.wake).start()


def _nothing(*_: object) -> None:
    pass
