"""`llm-api config`: what the service runs with."""

import json
from dataclasses import asdict

import click

from app.cli.output import json_option, write_json, write_table
from app.config.loader import load_with_sources
from app.config.shown import DEFAULT, shown_values


@click.group
def config() -> None:
    """Show the configuration. `llm-api check-config` checks it."""


@config.command
@click.option("--changed", is_flag=True, help="Only what is no default.")
@json_option
def show(changed: bool, as_json: bool) -> None:
    """Show every key with its value and where that comes from: a default, the file or an environment variable.

    Secrets are not shown.
    """
    values = [value for value in shown_values(*load_with_sources()) if not (changed and value.source == DEFAULT)]
    if as_json:
        write_json([asdict(value) for value in values])
        return
    write_table(["KEY", "~VALUE", "~FROM"], ((value.key, _written(value.value), value.source) for value in values))


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
