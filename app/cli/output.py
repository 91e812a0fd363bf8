"""What commands print: tables for people, JSON for programs. `NO_COLOR` and a pipe switch colours off."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_UNLIMITED_WIDTH = 10_000  # a pipe has none, and what reads it wants whole lines
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--json`, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def write_json(value: Any, *, one_line: bool = False) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=None if one_line else 2))


def write_lines(values: Mapping[str, object]) -> None:
    """Print names and values, each pair in a line; None is left out."""
    shown = {name: str(value) for name, value in values.items() if value is not None}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {harmless(value)}")


def console(*, stderr: bool = False) -> "Console":
    """Return what prints for people on stdout, or on stderr. It interprets no markup in texts of others."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNLIMITED_WIDTH
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def harmless(text: str) -> str:
    """Return a text of others without what commands a terminal; ends of lines and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns. None is an empty field; a column whose name begins with `#` is aligned right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else " ".join(harmless(str(value)).split("\n"))) for value in row))
    console().print(table)
