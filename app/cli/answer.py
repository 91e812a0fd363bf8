"""One answer of the model: a job is made, its text is printed as it comes, and Ctrl-C cancels it.

The text comes from the job's events, so it continues where it was after the API, a worker or the network was gone.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from app.cli.client import Client, resource
from app.cli.job_events import JobEvent, follow
from app.cli.output import harmless


@dataclass(frozen=True, slots=True)
class Answer:
    """text: what was printed. end: the last event; None: Ctrl-C came first, and the job is canceled."""

    job_id: str
    text: str
    end: JobEvent | None


def ask(client: Client, request: Mapping[str, Any], write: Callable[[str], None]) -> Answer:
    """Make a job of a request to `/agenerate`, and give its text to `write` piece by piece.

    Raises RequestFailed; a job that fails is an `Answer` too.
    """
    job = client.post("/agenerate", {**request, "stream": False})
    pieces: list[str] = []
    try:
        for event in follow(client, job["id"], on_break=_report_break):
            if event.type == "delta":
                pieces.append(event.data["text"])
                write(event.data["text"])
            elif event.type == "end":
                return Answer(job["id"], "".join(pieces), event)
    except KeyboardInterrupt:
        client.post(resource("/jobs", job["id"], "cancel"))
    return Answer(job["id"], "".join(pieces), None)


def write_text(text: str) -> None:
    """Print a piece of a model's text at once; a terminal obeys nothing in it."""
    click.echo(harmless(text) if sys.stdout.isatty() else text, nl=False)
    sys.stdout.flush()


def _report_break(reason: str) -> None:
    click.echo(f"\n[{reason}: waiting to go on]", err=True)
