"""Generation over HTTP against the bare loop: rounds in turn, medians, ratios."""

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import Body, Result, percentile, run_load
from tests.stack import SMOLLM2_FILE

NEW_TOKENS = 64
CONCURRENCY = (1, 8, 32)
_WORDS = ["river", "mountain", "engine", "garden", "violin", "market", "winter", "harbour", "letter", "candle"]


def prompts(count: int, rng: random.Random) -> list[str]:
    """Distinct prompts of 14 to 16 tokens."""
    return [f"Write about the {' '.join(rng.choices(_WORDS, k=6))} number {rng.randrange(1000)}:" for _ in range(count)]


def body(prompt: str) -> Body:
    params = {"max_tokens": NEW_TOKENS, "temperature": 0, "repeat_penalty": 1.0, "ignore_eos": True}
    return {"prompt": prompt, "params": params, "details": True}


@dataclass(slots=True)
class BareLoop:
    """`ask` takes an order as `tests/bench/bare_loop.py` reads it."""

    process: "subprocess.Popen[str]"

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def seconds(self, texts: list[str], new_tokens: int, *, shares_prefix: bool = False) -> float:
        return float(self.ask(prompts=texts, new_tokens=new_tokens, shares_prefix=shares_prefix)["seconds"])

    def tokens_per_second(self, texts: list[str]) -> float:
        return len(texts) * NEW_TOKENS / self.seconds(texts, NEW_TOKENS)


@contextmanager
def bare_loop(sequences: int = max(CONCURRENCY), cells: int = 512, path: Path = SMOLLM2_FILE) -> Iterator[BareLoop]:
    """The bare loop in a process of its own, on the default model or another file."""
    command = [sys.executable, "-m", "tests.bench.bare_loop", str(path), str(sequences), str(cells)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == "ready"
        try:
            yield BareLoop(process)
        finally:
            process.kill()


def measure(url: str, rounds: int) -> None:
    """Print the throughput table."""
    rng = random.Random(1)
    print(f"\nthroughput, {NEW_TOKENS} new tokens, distinct prompts, median of {rounds} rounds in turn [min-max]")
    print("clients  over HTTP tok/s      bare loop tok/s      ratio             req/s   latency p50/p99   first token")
    with bare_loop() as bare:
        run_load(url, [body(text) for text in prompts(2, rng)], 2)  # warm both
        bare.tokens_per_second(prompts(2, rng))
        for clients in CONCURRENCY:
            ours: list[Result] = []
            theirs: list[float] = []
            for _ in range(rounds):
                texts = prompts(clients, rng)
                ours.append(run_load(url, [body(text) for text in texts], clients))
                theirs.append(bare.tokens_per_second(texts))
            streams = run_load(url, [body(text) for text in prompts(clients, rng)], clients, streamed=True)
            _print_row(clients, ours, theirs, streams)


def _print_row(clients: int, ours: list[Result], theirs: list[float], streams: Result) -> None:
    rates = [result.tokens_per_second for result in ours]
    ratios = [mine / limit for mine, limit in zip(rates, theirs, strict=True)]
    latencies = [latency for result in ours for latency in result.latencies]
    errors = [error for result in (*ours, streams) for error in result.errors]
    print(
        f"{clients:7}  {spread(rates, 0):20} {spread(theirs, 0):20} {spread(ratios, 3):17} "
        f"{statistics.median(r.requests_per_second for r in ours):6.2f}  "
        f"{percentile(latencies, 0.5):6.2f}/{percentile(latencies, 0.99):.2f} s   "
        f"{percentile(streams.first_tokens, 0.5):.3f}/{percentile(streams.first_tokens, 0.99):.3f} s",
        *(f"\n    {len(errors)} errors, the first: {errors[0]}" for _ in errors[:1]),
    )


def spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"
