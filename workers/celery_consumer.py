"""What a worker's Celery consumer does with a doorbell: it claims the first job of the order.

A doorbell (`app.jobs.order`) carries no job, so the task has a strategy of its own, Celery's hook between a message and
its execution: it calls the worker in the consumer's thread, with no task request, no pool and no acknowledgement. The
batch loop does the work; the worker itself counts its jobs and decides whether another one may be fetched
(docs/decisions/0002, 0031).
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, Task, bootsteps, signals
from kombu.asynchronous import get_event_loop

from app.jobs.order import TASK_NAME
from workers.worker import Worker

logger = logging.getLogger(__name__)


def adapt_consumer(celery: Celery, worker: Worker) -> None:
    """Have `celery`'s consumer in this process claim jobs for `worker`, and fetch doorbells only while it has room."""

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

    class FetchWithRoom(bootsteps.StartStopStep):
        """Runs again at every reconnect, which makes a new channel."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            consumer.task_consumer.channel.qos.can_consume = worker.has_room

    celery.register_task(Doorbell())
    celery.steps["consumer"].add(FetchWithRoom)
    worker.on_room = _turn_event_loop
    signals.worker_shutting_down.connect(_stop_at_once)


def _stop_at_once(**_: object) -> None:
    """Turn Celery's event loop, which notices only then that it should stop: else it would take one more doorbell.

    From another thread: a signal is handled in the loop's own thread, where the hub sees no need to wake itself.
    """
    threading.Thread(target=_turn_event_loop).start()


def _turn_event_loop() -> None:
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(_nothing)


def _nothing(*_: object) -> None:
    pass
