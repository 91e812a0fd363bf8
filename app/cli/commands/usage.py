"""`llm-api usage`: what ended jobs have used."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import click

from app.cli.client import Client
from app.cli.output import json_option, write_json, write_lines, write_table
from app.cli.service_options import service_options

_DAY = click.DateTime(["%Y-%m-%d"])
_NUMBERS = {
    "requests": "#REQUESTS",
    "succeeded": "#SUCCEEDED",
    "failed": "#FAILED",
    "canceled": "#CANCELED",
    "expired": "#EXPIRED",
    "cache_hits": "#CACHE HITS",
    "prompt_tokens": "#PROMPT",
    "cached_tokens": "#CACHED",
    "completion_tokens": "#COMPLETION",
    "compute_seconds": "#SECONDS",
}
_ALWAYS = ("requests", "prompt_tokens", "completion_tokens")


@click.command
@click.option(
    "--from", "first", type=_DAY, metavar="DAY", help="The first day (UTC). Default: 29 days before the last."
)
@click.option("--to", "last", type=_DAY, metavar="DAY", help="The last day (UTC). Default: today.")
@click.option(
    "--by",
    default="day,model",
    show_default=True,
    metavar="GROUPS",
    help="What has a row of its own: day, model, key, tenant, label.",
)
@click.option(
    "--key", "owner", metavar="KEY", help="The usage of one API key, by its name or id. Others' need the scope admin."
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@service_options
def usage(
    client: Client,
    first: datetime | None,
    last: datetime | None,
    by: str,
    owner: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show the tokens, outcomes and seconds of ended jobs: yours, or everybody's with a key of the scope admin."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    query = {"from": first and first.date(), "to": last and last.date(), "by": by, "owner": owner}
    if as_csv:
        given = {name: str(value) for name, value in query.items() if value is not None}
        for piece in client.download(f"/usage?{urlencode(given | {'format': 'csv'})}"):
            click.echo(piece, nl=False)
        return
    report = client.get("/usage", **query, format="json")
    if as_json:
        write_json(report)
    else:
        _write_report(report)


def _write_report(report: dict[str, Any]) -> None:
    """Print a table without what says nothing: numbers that are 0 in all rows, and the one model of all rows."""
    rows, total = report["data"], report["total"]
    groups = [name for group in report["by"] for name in (["key", "key_name"] if group == "key" else [group])]
    models = {row["model"] for row in rows} if len(groups) > 1 and "model" in groups else set()
    if len(models) == 1:
        groups.remove("model")
        write_lines({"model": models.pop()})
        click.echo()
    numbers = [name for name in _NUMBERS if total[name] or name in _ALWAYS]
    columns = [*(name.replace("_", " ").upper() for name in groups), *(_NUMBERS[name] for name in numbers)]
    sums = {**dict.fromkeys(groups), **total, groups[0]: "total"}
    write_table(columns, ([*map(row.get, groups), *_numbers(row, numbers)] for row in [*rows, sums]))


def _numbers(counters: dict[str, Any], names: list[str]) -> list[str]:
    return [f"{counters[name]:.1f}" if name == "compute_seconds" else f"{counters[name]:,}" for name in names]
