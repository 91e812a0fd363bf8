"""What commands print: tables for people, JSON for programs. `NO_COLOR` and a pipe switch colours off."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

_UNLIMITED_WIDTH = 10_000  # a pipe has none, and what reads it wants whole lines
_WRAPPED_WIDTH = 20  # of a text in several lines that is still easy to read
_GAP = 2
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


def time_or_day(moment: datetime) -> str:
    """Return the time of a moment of today, and the day of any other, in the time zone of this machine."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == datetime.now().astimezone().date() else f"{local:%Y-%m-%d}"


def write_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "there is nothing") -> None:
    """Print rows in columns, or each row as lines of names and values where a terminal is too narrow for the columns.

    Args:
        columns: their names. One that begins with `#` is aligned right, one that begins with `~` may be wrapped.
        rows: None is an empty field. A column whose fields are all empty is left out.
        empty: what is printed on stderr where there are no rows.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [["" if value is None else " ".join(harmless(str(value)).split("\n")) for value in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    kept = [index for index in range(len(columns)) if any(row[index] for row in cells)]
    names = [columns[index].lstrip("#~") for index in kept]
    cells = [[row[index] for index in kept] for row in cells]
    screen = console()
    if _needed_width([columns[index] for index in kept], cells) > screen.width:
        for number, row in enumerate(cells):
            if number:
                click.echo()
            write_lines({name.lower(): cell or None for name, cell in zip(names, row, strict=True)})
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for index, name in zip(kept, names, strict=True):
        mark = columns[index][0]
        table.add_column(name, justify="right" if mark == "#" else "left", overflow="fold", no_wrap=mark != "~")
    for row in cells:
        table.add_row(*map(Text, row))
    screen.print(table)


def _needed_width(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    from rich.cells import cell_len

    width = _GAP * (len(columns) - 1)
    for index, name in enumerate(columns):
        widest = max([cell_len(name.lstrip("#~")), *(cell_len(row[index]) for row in cells)])
        width += min(widest, _WRAPPED_WIDTH) if name.startswith("~") else widest
    return width
