"""`llm-api audit`: the audit stream of ended jobs. It is read from Redis, on the machine of the service."""

import contextlib
import os

import click
import redis

from app.cli.output import write_json
from app.cli.redis_address import redis_for_command
from app.config.counted import counted
from app.config.loader import load_config
from app.config.own_command import own_command
from app.jobs.redis_client import connect
from app.ledger.audit import FIRST, entries_after, may_be_missing_after, position


def _position(ctx: click.Context, option: click.Parameter, since: str | None) -> str:
    if since is None:
        return FIRST
    try:
        return position(since)
    except ValueError:
        raise click.BadParameter(
            "expected the id of an entry, such as 1764412345678-0, or a time, such as 2026-11-29T12:00:00Z"
        ) from None


class _Unreachable(click.ClickException):
    exit_code = os.EX_UNAVAILABLE


@click.group
def audit() -> None:
    """Export who ran what, when, and how it ended. Prompts and answers are not in it."""


@audit.command
@click.option(
    "--since",
    callback=_position,
    metavar="ID|TIME",
    help="Only later entries: the id of the last one of an earlier export, or a time (UTC where it has no zone).",
)
def export(since: str) -> None:
    """Print an entry for each ended job, oldest first: one JSON object a line.

    At the end, a line on stderr has the id with which the next export continues.
    """
    last, count = since, 0
    try:
        with redis_for_command(load_config()) as url, contextlib.closing(connect(url)) as client:
            if may_be_missing_after(client, since):
                click.echo("older entries were removed, and some may be missing here (audit.keep)", err=True)
            for entry in entries_after(client, since):
                write_json(entry, one_line=True)
                last, count = entry["id"], count + 1
    except redis.RedisError as error:
        cure = f"check redis_url, and that Redis or {own_command('run')} is up" + (
            f"; continue with --since {last}" if count else ""
        )
        raise _Unreachable(f"cannot read from Redis ({type(error).__name__}); {cure}") from None
    click.echo(f"{counted(count, 'entry', 'entries')}; the next export: --since {last}", err=True)
