"""`llm-api batch`: run a file of requests at low priority, and fetch its results."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from app.cli.batch_progress import done_of, has_ended, read_batch, wait_for
from app.cli.client import Client, resource
from app.cli.output import json_option, time_or_day, write_json, write_lines, write_table
from app.cli.service_options import service_options
from app.config.own_command import own_command

_LISTED = 20


@click.group
def batch() -> None:
    """Run files of requests at low priority. docs/batches.md describes the lines of such a file."""


@batch.command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--window", default="24h", show_default=True, help="How long it may take: 90m, 24h, at most 30d.")
@click.option("--wait", is_flag=True, help="Show its progress until it has ended.")
@json_option
@service_options
def submit(client: Client, file: Path, window: str, wait: bool, as_json: bool) -> None:
    """Upload FILE, a JSONL file of requests, and run each of its lines."""
    content = file.read_bytes()
    endpoint = _endpoint(file, content)
    uploaded = client.upload("/v1/files", {"purpose": "batch"}, file.name, content)
    made = client.post(
        "/v1/batches", {"input_file_id": uploaded["id"], "endpoint": endpoint, "completion_window": window}
    )
    if wait and not has_ended(made):
        made = wait_for(client, made["id"])
    _show(made, as_json=as_json)
    _fail_with(made)


@batch.command
@click.argument("batch_id", metavar="[ID]", required=False)
@click.option("--wait", is_flag=True, help="Show its progress until it has ended.")
@json_option
@service_options
def status(client: Client, batch_id: str | None, wait: bool, as_json: bool) -> None:
    """Show a batch; without ID, list the latest ones."""
    if batch_id is None:
        _list(client, as_json=as_json)
        return
    shown = wait_for(client, batch_id) if wait else read_batch(client, batch_id)
    _show(shown, as_json=as_json)
    _fail_with(shown)


@batch.command
@click.argument("batch_id", metavar="ID")
@click.option("-o", "--output", type=click.File("wb", lazy=True), default="-", help="A file instead of stdout.")
@click.option("--wait", is_flag=True, help="Wait until the batch has ended.")
@service_options
def fetch(client: Client, batch_id: str, output: IO[bytes], wait: bool) -> None:
    """Write the results of a batch that has ended: one JSON object for each line of its file, failed ones last."""
    ended = wait_for(client, batch_id) if wait else read_batch(client, batch_id)
    if not has_ended(ended):
        done = f"{done_of(ended)} of {ended['request_counts']['total']} are done"
        raise click.ClickException(f"the batch still runs ({done}); wait with --wait")
    for file_id in (ended["output_file_id"], ended["error_file_id"]):
        if file_id is not None:
            for piece in client.download(resource("/v1/files", file_id, "content")):
                output.write(piece)
    _fail_with(ended)


def _endpoint(file: Path, content: bytes) -> str:
    """Return the `url` of the first line: all lines of a batch have the same."""
    first = next((line for line in content.splitlines() if line.strip()), b"")
    try:
        return str(json.loads(first)["url"])
    except (ValueError, TypeError, KeyError):
        example = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}'
        raise click.ClickException(f"{file}: the first line is no request; expected {example}") from None


def _list(client: Client, *, as_json: bool) -> None:
    page = client.get("/v1/batches", limit=_LISTED)
    if as_json:
        write_json(page["data"])
        return
    write_table(
        ["ID", "STATUS", "#DONE", "#FAILED", "CREATED"],
        (
            (
                one["id"],
                one["status"],
                f"{done_of(one)}/{one['request_counts']['total']}",
                one["request_counts"]["failed"] or None,
                time_or_day(datetime.fromtimestamp(one["created_at"], UTC)),
            )
            for one in page["data"]
        ),
    )


def _show(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(shown)
        return
    counts = shown["request_counts"]
    write_lines(
        {
            "id": shown["id"],
            "status": shown["status"],
            "requests": f"{counts['total']}: {counts['completed']} completed, {counts['failed']} failed",
            "tokens": f"{shown['usage']['input_tokens']} prompt, {shown['usage']['output_tokens']} generated",
            "created": _moment(shown["created_at"]),
            "ends by": _moment(shown["expires_at"]),
        }
    )
    if not has_ended(shown):
        click.echo(f"\nits progress: {own_command('batch status --wait')} {shown['id']}", err=True)
    elif shown["output_file_id"] or shown["error_file_id"]:
        click.echo(f"\nits results: {own_command('batch fetch')} {shown['id']}", err=True)


def _fail_with(shown: dict[str, Any]) -> None:
    """Raise ClickException for a batch that could not be run, or has not been run to its end."""
    faults = (shown["errors"] or {}).get("data") or []
    if faults:
        where = f"line {faults[0]['line']}: " if faults[0].get("line") else ""
        more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
        raise click.ClickException(f"{where}{faults[0]['message']}{more}")
    if shown["status"] in ("failed", "expired", "cancelled"):
        raise click.ClickException(f"the batch is {shown['status']}")


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
