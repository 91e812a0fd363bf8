"""A batch, watched until it has ended, with a progress bar where a person looks on."""

import sys
import time
from typing import Any

from app.cli.client import Client, RequestFailed, resource
from app.cli.job_events import PATIENCE_SECONDS
from app.cli.output import console

POLL_SECONDS = 0.5
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


def has_ended(batch: dict[str, Any]) -> bool:
    return batch["status"] in _ENDED


def read_batch(client: Client, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = client.get(resource("/v1/batches", batch_id))
    return batch


def wait_for(client: Client, batch_id: str) -> dict[str, Any]:
    """Return the batch once it has ended; a service that restarts meanwhile is waited for. Raises RequestFailed."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(batch_id, total=None)
        while True:
            batch = _read_patiently(client, batch_id)
            counts = batch["request_counts"]
            failed = f", {counts['failed']} failed" if counts["failed"] else ""
            done = counts["completed"] + counts["failed"]
            bar.update(task, total=counts["total"], completed=done, description=f"{batch['status']}{failed}")
            if has_ended(batch):
                return batch
            time.sleep(POLL_SECONDS)


def _read_patiently(client: Client, batch_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return read_batch(client, batch_id)
        except RequestFailed as error:
            if not error.may_pass or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)
