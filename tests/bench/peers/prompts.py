"""Where the prompts of the workloads come from: generated sentences, or the lines of a file."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.bench.throughput import prompts as short_prompts

LONG_BYTES = 3_600  # about 900 tokens of English
MAX_LINE_BYTES = 1_900  # no more tokens than bytes: with 120 new ones they fit into a slot of 2,048

# fmt: off
WORDS = (
    "river", "mountain", "engine", "garden", "violin", "market", "winter", "harbour", "letter", "candle", "bridge",
    "forest", "window", "silver", "doctor", "summer", "island", "kitchen", "pencil", "thunder", "railway", "blanket",
    "orchard", "pilot", "museum", "copper", "meadow", "lantern", "anchor", "basket",
)
# fmt: on


class Prompts(Protocol):
    """All prompts of a run differ, so that no server has computed one before. long_size: of a long prompt, in words."""

    long_size: str

    def short(self, count: int, rng: random.Random) -> list[str]: ...

    def long(self, count: int, rng: random.Random) -> list[str]: ...


class GeneratedPrompts:
    long_size = "900 tokens"

    def short(self, count: int, rng: random.Random) -> list[str]:
        return short_prompts(count, rng)

    def long(self, count: int, rng: random.Random) -> list[str]:
        return [f"{_sentences(rng, 66)} In short," for _ in range(count)]


class LinesOfFile:
    """A line is a prompt as it is. When all have been used, they come again with a number in front of them."""

    long_size = f"{LONG_BYTES:,} bytes"

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = list(dict.fromkeys(lines))
        self._unused: list[str] = []
        self._passes = 0
        self._long_prompts = 0

    def short(self, count: int, rng: random.Random) -> list[str]:
        return [self._next(rng) for _ in range(count)]

    def long(self, count: int, rng: random.Random) -> list[str]:
        """Return prompts of `LONG_BYTES`: a number, then lines from a random one on, the first after the last."""
        return [self._joined(rng) for _ in range(count)]

    def _next(self, rng: random.Random) -> str:
        if not self._unused:
            self._unused = rng.sample(self._lines, len(self._lines))
            self._passes += 1
        line = self._unused.pop()
        return line if self._passes == 1 else f"{self._passes}. {line}"

    def _joined(self, rng: random.Random) -> str:
        self._long_prompts += 1
        text = f"{self._long_prompts}."
        start = rng.randrange(len(self._lines))
        for line in itertools.islice(itertools.cycle(self._lines), start, None):
            text += f" {line}"
            if len(text.encode()) >= LONG_BYTES:
                break
        return text.encode()[:LONG_BYTES].decode(errors="ignore")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        ValueError: there is none, it is not UTF-8, or one is too long for a slot.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines, 1):
        if len(line.encode()) > MAX_LINE_BYTES:
            raise ValueError(
                f"line {number} of {path} has {len(line.encode()):,} bytes: at most {MAX_LINE_BYTES:,} fit"
            )
    if not any(lines):
        raise ValueError(f"{path} has no line of text: write one prompt a line")
    return [line for line in lines if line]


def _sentences(rng: random.Random, count: int) -> str:
    """About 13 tokens each."""
    return " ".join(
        f"The {rng.choice(WORDS)} of number {rng.randrange(100)} stands behind the {first} {second}."
        for first, second in (rng.choices(WORDS, k=2) for _ in range(count))
    )
