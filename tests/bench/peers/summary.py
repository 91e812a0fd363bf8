"""The table at the end of a run: a row for each model file, the lowest figures first."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.peers.contenders import LlamaServerAtItsBest, LlamaServerByDefault
from tests.bench.peers.reference import BARE_LOOP_OF_ONE
from tests.bench.throughput import spread

Ratios = Mapping[tuple[str, str], list[float]]
"""By the names of a workload and of a contender: ours to theirs, of each round."""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    work: str
    contender: str


_BEST, _DEFAULT = LlamaServerAtItsBest.name, LlamaServerByDefault.name
_COLUMNS = (
    Column("1 client", "1", _BEST),
    Column("8", "8", _BEST),
    Column("32", "32", _BEST),
    Column("8 \N{MULTIPLICATION SIGN} {long_size}", "long", _BEST),
    Column("shared prefix", "prefix", _BEST),
    Column("8, its defaults", "8", _DEFAULT),
    Column("32, its defaults", "32", _DEFAULT),
    Column("1 client, bare loop of one stream", "1", BARE_LOOP_OF_ONE),
)


def summary(ratios_by_file: Mapping[str, Ratios], long_size: str) -> str:
    """Return a Markdown table of what was measured; nothing where nothing was.

    The row with the lowest median is the first one. Medians below 1 are bold: there the other is better.

    Args:
        long_size: the size of the prompts of the workload "long".
    """
    columns = [
        column
        for column in _COLUMNS
        if any((column.work, column.contender) in ratios for ratios in ratios_by_file.values())
    ]
    if not columns:
        return ""
    rows = sorted(ratios_by_file.items(), key=lambda row: _lowest(row[1], columns))
    titles = ["file", *(column.title.format(long_size=long_size) for column in columns)]
    cells = [[file, *(_cell(ratios, column) for column in columns)] for file, ratios in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["---"] * len(titles), *cells])


def _lowest(ratios: Ratios, columns: list[Column]) -> float:
    medians = [
        statistics.median(ratios[column.work, column.contender])
        for column in columns
        if (column.work, column.contender) in ratios
    ]
    return min(medians, default=math.inf)


def _cell(ratios: Ratios, column: Column) -> str:
    values = ratios.get((column.work, column.contender))
    if values is None:
        return ""
    median, _, extremes = spread(values, 3).partition(" ")
    return f"**{median}** {extremes}" if statistics.median(values) < 1 else f"{median} {extremes}"
