"""`llm-api jobs`: the caller's jobs, to list, read, follow, move in line, cancel and run again."""

from datetime import datetime
from typing import Any

import click

from app.cli.answer import write_text
from app.cli.client import Client, resource
from app.cli.job_events import follow as follow_events
from app.cli.job_events import note_of_limit, raise_unless_succeeded
from app.cli.job_ids import SHORT_ID, pages, whole_id, whole_ids
from app.cli.output import json_option, time_or_day, write_json, write_lines, write_table
from app.cli.service_options import service_options
from app.config.counted import counted

_STATUSES = ["queued", "processing", "succeeded", "failed", "canceled", "expired"]
_PRIORITIES = ["high", "normal", "low"]


@click.group
def jobs() -> None:
    """List, show, follow, move, cancel and repeat jobs. Every request for text or embeddings is one."""


@jobs.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only these.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@click.option("--full", is_flag=True, help="Show whole ids and times.")
@json_option
@service_options
def list_jobs(client: Client, status: str | None, limit: int, full: bool, as_json: bool) -> None:
    """List your jobs, newest first. The other commands accept the first digits of an id too."""
    listed = list(pages(client, status, limit))
    if as_json:
        write_json(listed)
        return
    write_table(
        ["ID", "STATUS", "PRIORITY", "#PLACE", "CREATED", "#TOKENS", "#TOKENS/S", "~ERROR"],
        (
            (
                job["id"] if full else job["id"][:SHORT_ID],
                job["status"],
                job["priority"],
                job["queue_position"],
                _moment(job["created_at"]) if full else time_or_day(datetime.fromisoformat(job["created_at"])),
                (job["usage"] or {}).get("completion_tokens"),
                _rate(job),
                (job["error"] or {}).get("code"),
            )
            for job in listed
        ),
        empty="there are no jobs",
    )


@jobs.command
@click.argument("job_id", metavar="ID")
@json_option
@service_options
def show(client: Client, job_id: str, as_json: bool) -> None:
    """Show a job: its state, its times, and its text or why it has none."""
    job = client.get(resource("/jobs", whole_id(client, job_id)))
    if as_json:
        write_json(job)
        return
    usage, metrics, error = job["usage"] or {}, job["metrics"] or {}, job["error"] or {}
    output = job["output"] or {}
    lines = {
        "id": job["id"],
        "kind": job["kind"],
        "model": job["model"],
        "status": job["status"],
        "priority": job["priority"],
        "place": job["queue_position"],
        "starts": _moment(job["estimated_start_at"]),
        "created": _moment(job["created_at"]),
        "started": _moment(job["started_at"]),
        "completed": _moment(job["completed_at"]),
        "attempt": job["attempt"] or None,
        "tokens": f"{usage['prompt_tokens']} prompt, {usage['completion_tokens']} generated" if usage else None,
        "first token": _seconds(metrics.get("time_to_first_token_seconds")),
        "tokens/s": _rate(job),
        "ended by": output.get("finish_reason"),
        "error": f"{error['code']}: {error['message']}" if error else None,
        "webhook": _webhook(job["webhook"]),
    }
    write_lines(lines)
    if output.get("text"):
        click.echo()
        write_text(output["text"])
        click.echo()


@jobs.command
@click.argument("job_id", metavar="ID")
@json_option
@service_options
def follow(client: Client, job_id: str, as_json: bool) -> None:
    """Print a job's text from its beginning, and go on while it is written. Leaving does not cancel the job."""
    for event in follow_events(client, whole_id(client, job_id)):
        if as_json:
            write_json({"id": event.id, "event": event.type, **event.data}, one_line=True)
        elif event.type == "delta":
            write_text(event.data["text"])
        elif event.type == "end":
            click.echo()
            if note := note_of_limit(event):
                click.echo(note, err=True)
        if event.type == "end":
            raise_unless_succeeded(event)


@jobs.command
@click.argument("job_id", metavar="ID")
@click.argument("wanted", metavar="|".join(_PRIORITIES), type=click.Choice(_PRIORITIES))
@json_option
@service_options
def priority(client: Client, job_id: str, wanted: str, as_json: bool) -> None:
    """Change the priority of a job that waits. Waiting jobs of a higher one start first."""
    job = client.patch(resource("/jobs", whole_id(client, job_id)), {"priority": wanted})
    if as_json:
        write_json(job)
    else:
        click.echo(f"{job['id']} {job['priority']}")


@jobs.command
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@service_options
def cancel(client: Client, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs; those that have ended stay as they are."""
    ids = whole_ids(client, job_ids)
    _report([client.post(resource("/jobs", job_id, "cancel")) for job_id in ids], as_json=as_json)


@jobs.command
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@service_options
def retry(client: Client, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Run the requests of jobs that have ended once more, as new jobs."""
    ids = whole_ids(client, job_ids)
    _report([client.post(resource("/jobs", job_id, "retry")) for job_id in ids], as_json=as_json)


def _report(changed: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        write_json(changed)
        return
    for job in changed:
        click.echo(f"{job['id']} {job['status']}")


def _moment(value: str | None) -> str | None:
    """Return a time of the service in the time zone of this machine."""
    return None if value is None else f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}"


def _webhook(status: dict[str, Any] | None) -> str | None:
    """Return what has become of a job's webhook: "waiting, 2 tries: HTTP 500; next 2026-11-29 12:00:00"."""
    if status is None:
        return None
    tries = counted(status["tries"], "try", "tries")
    reason = f": {status['error']}" if status["error"] else ""
    next_try = f"; next {_moment(status['next_try_at'])}" if status["next_try_at"] else ""
    return f"{status['state'].replace('_', ' ')}, {tries}{reason}{next_try}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} s"


def _rate(job: dict[str, Any]) -> str | None:
    rate = (job["metrics"] or {}).get("tokens_per_second")
    return None if rate is None else f"{rate:.1f}"
