"""The huggingface family over HTTP against transformers' own ways to serve: rounds in turn, medians, ratios.

Against `generate()` for one prompt after the other, and against `transformers serve --continuous-batching`. All three
run all the time; only one of them has work at a time.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import run_load
from tests.bench.serve_peer import SETTINGS, Peer, serve_peer
from tests.bench.throughput import NEW_TOKENS, body, prompts, spread

BATCH, SEQUENTIAL = 16, 4  # requests at once; requests one after the other, for the rate of a single one
SHORT = LONG = 8
LONG_TOKENS = 900
CELLS = 1024
_WORDS = ["river", "mountain", "engine", "garden", "winter", "market", "letter", "house", "water", "city", "paper"]


@dataclass(frozen=True, slots=True)
class Round:
    """Tokens per second, and each prompt's text."""

    rate: float
    texts: dict[str, str]


Runner = Callable[[list[str]], Round]


@dataclass(frozen=True, slots=True)
class Sequential:
    process: "subprocess.Popen[str]"

    def run(self, texts: list[str]) -> Round:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"prompts": texts, "new_tokens": NEW_TOKENS}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return Round(len(texts) * NEW_TOKENS / answer["seconds"], answer["texts"])


def config(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "model_family": "huggingface",
        "setup_params": {"path": str(folder)},
        "model_params": {"n_ctx": CELLS},
        "worker": {"slots": BATCH},
        **more,
    }


def measure(url: str, folder: Path, rounds: int, log: Path) -> None:
    """url: the service on the model of `folder`."""
    rng = random.Random(1)
    ours = over_http(url)
    with sequential_generate(folder) as sequential, serve_peer(folder, log) as peer:
        theirs = _over_peer(peer)
        for warm in (ours, theirs, sequential.run):
            warm(prompts(2, rng))
        print(
            f"\nhuggingface over HTTP, bfloat16, {NEW_TOKENS} new tokens, median of {rounds} rounds in turn [min-max]"
        )
        print(f" peer: transformers serve --continuous-batching {' '.join(SETTINGS)};", end=" ")
        print(f"idle, it takes {peer.idle_share():.0%} of a core")
        compare(
            f"{BATCH} at once / generate() one by one", ours, sequential.run, rounds, lambda: prompts(BATCH, rng),
            theirs_of=lambda texts: texts[:SEQUENTIAL],
        )  # fmt: skip
        compare(f"{SHORT} short prompts / peer", ours, theirs, rounds, lambda: prompts(SHORT, rng))
        compare(f"{LONG} x {LONG_TOKENS} tokens / peer", ours, theirs, rounds, lambda: long_prompts(LONG, rng))


def measure_quantized(url: str, plain_url: str, rounds: int) -> None:
    """url: the service on the model quantized with GPTQ; plain_url: on the same in bfloat16."""
    rng = random.Random(2)
    quantized, plain = over_http(url), over_http(plain_url)
    for warm in (quantized, plain):
        warm(prompts(2, rng))
    print(f"\ngptq_llama over HTTP, 4 bits, {NEW_TOKENS} new tokens, median of {rounds} rounds in turn [min-max]")
    compare(f"{SHORT} short prompts / bfloat16", quantized, plain, rounds, lambda: prompts(SHORT, rng))


def compare(
    name: str,
    ours: Runner,
    theirs: Runner,
    rounds: int,
    draw: Callable[[], list[str]],
    theirs_of: Callable[[list[str]], list[str]] = list,
) -> None:
    """Print both rates, the ratio, and how many texts are equal: in bfloat16 rounding makes some of them differ."""
    pairs = []
    for _ in range(rounds):
        texts = draw()
        pairs.append((ours(texts), theirs(theirs_of(texts))))
    equal = [mine.texts[prompt] == text for mine, other in pairs for prompt, text in other.texts.items()]
    mine, others = [each.rate for each, _ in pairs], [each.rate for _, each in pairs]
    ratios = [one / other for one, other in zip(mine, others, strict=True)]
    print(
        f"  {name:36} {spread(mine, 0):16} {spread(others, 1):18} ratio {spread(ratios, 2):18}"
        f" {sum(equal)} of {len(equal)} texts equal",
        flush=True,
    )


def over_http(url: str) -> Runner:
    def run(texts: list[str]) -> Round:
        result = run_load(url, [body(text) for text in texts], len(texts))
        assert not result.errors and result.tokens == len(texts) * NEW_TOKENS, result.errors
        return Round(result.tokens_per_second, result.texts)

    return run


def long_prompts(count: int, rng: random.Random) -> list[str]:
    """Prompts of about `LONG_TOKENS` tokens, one a word, that share no beginning."""
    return [" ".join(rng.choices(_WORDS, k=LONG_TOKENS)) for _ in range(count)]


@contextmanager
def sequential_generate(folder: Path) -> Iterator[Sequential]:
    command = [sys.executable, "-m", "tests.bench.sequential_generate", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == "ready"
        try:
            yield Sequential(process)
        finally:
            process.kill()


def _over_peer(peer: Peer) -> Runner:
    def run(texts: list[str]) -> Round:
        result = peer.run(texts, NEW_TOKENS)
        return Round(result.tokens_per_second, result.texts)

    return run
