"""A batch, watched until it has ended, with a progress bar where a person looks on."""

import sys
import time
from datetime import timedelta
from typing import Any

from app.cli.client import Client, RequestFailed, resource
from app.cli.job_events import PATIENCE_SECONDS
from app.cli.output import console

POLL_SECONDS = 0.5
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


def has_ended(batch: dict[str, Any]) -> bool:
    return batch["status"] in _ENDED


def done_of(batch: dict[str, Any]) -> int:
    """Return how many requests have ended, well or not."""
    return int(batch["request_counts"]["completed"] + batch["request_counts"]["failed"])


def read_batch(client: Client, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = client.get(resource("/v1/batches", batch_id))
    return batch


def wait_for(client: Client, batch_id: str) -> dict[str, Any]:
    """Return the batch once it has ended; a service that restarts meanwhile is waited for. Raises RequestFailed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class TimeColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(times(task.elapsed, task.time_remaining))

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeColumn())
    with Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(batch_id, total=None)
        while True:
            batch = _read_patiently(client, batch_id)
            counts = batch["request_counts"]
            failed = f", {counts['failed']} failed" if counts["failed"] else ""
            description = f"{batch['status']}{failed}"
            bar.update(task, total=counts["total"], completed=done_of(batch), description=description)
            if has_ended(batch):
                return batch
            time.sleep(POLL_SECONDS)


def times(elapsed_seconds: float | None, left_seconds: float | None) -> str:
    """Return how long it has taken and, once that can be estimated, how long it will: "0:00:05, about 0:01:00 left"."""
    left = f", about {timedelta(seconds=int(left_seconds))} left" if left_seconds else ""
    return f"{timedelta(seconds=int(elapsed_seconds or 0))}{left}"


def _read_patiently(client: Client, batch_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return read_batch(client, batch_id)
        except RequestFailed as error:
            if not error.may_pass or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)
