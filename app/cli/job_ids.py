"""The caller's jobs, and their ids as people type them: the first digits are enough where one job has them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from app.cli.client import Client
from app.config.own_command import own_command

SHORT_ID = 8
_PAGE = 100  # the most that the service lists at once
_WHOLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BEGINNING = re.compile(r"[0-9a-f]{8}[0-9a-f-]*", re.IGNORECASE)


def pages(client: Client, status: str | None = None, limit: float = float("inf")) -> Iterator[dict[str, Any]]:
    """Give at most `limit` jobs, newest first, over as many pages as it takes."""
    cursor = None
    while limit > 0:
        page = client.get("/jobs", status=status, limit=min(limit, _PAGE), cursor=cursor)
        yield from page["data"]
        limit -= len(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def whole_id(client: Client, given: str) -> str:
    """Return the one id of the caller's jobs that begins so. Raises ClickException, RequestFailed."""
    return whole_ids(client, [given])[0]


def whole_ids(client: Client, given: Sequence[str]) -> list[str]:
    """Return `whole_id` of each; the jobs are listed once, and only for what is no whole id."""
    for text in given:
        if not _BEGINNING.fullmatch(text):
            problem = f"{text!r} is no id of a job, nor the first {SHORT_ID} digits of one"
            raise click.ClickException(f"{problem}; {own_command('jobs list')} shows them")
    is_listed = not all(map(_WHOLE.fullmatch, given))
    ids = [job["id"] for job in pages(client)] if is_listed else []
    return [text if _WHOLE.fullmatch(text) else _only(text, ids) for text in given]


def _only(text: str, ids: Sequence[str]) -> str:
    matches = [job_id for job_id in ids if job_id.startswith(text.lower())]
    if not matches:
        problem = f"none of your jobs has an id that begins with {text}"
        raise click.ClickException(f"{problem}; {own_command('jobs list')} shows them")
    if matches[1:]:
        raise click.ClickException(f"{len(matches)} of your jobs have ids that begin with {text}: {', '.join(matches)}")
    return matches[0]
