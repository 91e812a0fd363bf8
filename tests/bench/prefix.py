"""Many requests with one long prefix: over HTTP against the bare loop that computes it once and copies it."""

import random

from tests.bench.load import Body, run_load
from tests.bench.throughput import bare_loop, spread

REQUESTS, NEW_TOKENS, CELLS = 32, 16, 1024


def prompts(rng: random.Random) -> list[str]:
    """One prefix of about 530 tokens, new in every round, and an end of its own for each."""
    prefix = " ".join(f"Rule {number}: say {rng.randrange(1000)} when asked about {number}." for number in range(34))
    return [f"{prefix} Question {number}:" for number in range(REQUESTS)]


def body(prompt: str) -> Body:
    params = {"max_tokens": NEW_TOKENS, "temperature": 0, "repeat_penalty": 1.0, "ignore_eos": True}
    return {"prompt": prompt, "params": params, "details": True}


def measure(url: str, rounds: int) -> None:
    """Print how long both take for all of them."""
    rng = random.Random(1)
    ours: list[float] = []
    limits: list[float] = []
    errors: list[str] = []
    with bare_loop(REQUESTS, CELLS) as bare:
        for _ in range(rounds):
            texts = prompts(rng)
            result = run_load(url, [body(text) for text in texts], REQUESTS)
            ours.append(result.seconds)
            errors += result.errors
            limits.append(bare.seconds(texts, NEW_TOKENS, shares_prefix=True))
    ratios = [mine / limit for mine, limit in zip(ours, limits, strict=True)]
    print(
        f"\n{REQUESTS} requests, one prefix, {NEW_TOKENS} new tokens each; median of {rounds} rounds in turn [min-max]"
    )
    print(f"  over HTTP {spread(ours, 2)} s, bare loop {spread(limits, 2)} s, ratio {spread(ratios, 2)}")
    print(f"  errors: {len(errors)} {errors[:1]}")
