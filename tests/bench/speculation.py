"""Guessed tokens on and off: the gain where the answer is in the prompt, and the cost in other texts."""

import random
from collections.abc import Callable

from tests.bench import extraction, throughput
from tests.bench.load import Body, Result, run_load
from tests.bench.throughput import CONCURRENCY, NEW_TOKENS, spread


def quotes(count: int, rng: random.Random) -> list[Body]:
    return [extraction.body(prompt) for prompt in extraction.prompts(count, rng)]


def greedy(count: int, rng: random.Random) -> list[Body]:
    return [throughput.body(prompt) for prompt in throughput.prompts(count, rng)]


def drawn(count: int, rng: random.Random) -> list[Body]:
    """The default parameters, and a seed."""
    bodies = greedy(count, rng)
    return [
        {**body, "params": {"max_tokens": NEW_TOKENS, "ignore_eos": True, "seed": rng.randrange(1000)}}
        for body in bodies
    ]


WORK: list[tuple[str, Callable[[int, random.Random], list[Body]], int]] = [
    ("a passage repeated", quotes, 1),
    *(("ordinary, greedy", greedy, clients) for clients in CONCURRENCY),
    *(("ordinary, drawn", drawn, clients) for clients in CONCURRENCY),
]


def measure(with_guesses: str, without: str, rounds: int) -> None:
    """Print tokens per second of both services, whole requests counted, prefill included."""
    rng = random.Random(1)
    print(f"\nguessed tokens, median of {rounds} rounds in turn [min-max]")
    print("work                clients  with tok/s           without tok/s        ratio")
    for url in (with_guesses, without):
        run_load(url, greedy(2, rng), 2)  # warm
    for name, make, clients in WORK:
        rates: dict[str, list[float]] = {with_guesses: [], without: []}
        errors: list[str] = []
        for number in range(rounds):
            bodies = make(clients, rng)
            for url in (with_guesses, without) if number % 2 else (without, with_guesses):
                result: Result = run_load(url, bodies, clients)
                rates[url].append(result.tokens_per_second)
                errors += result.errors
        ratios = [mine / plain for mine, plain in zip(rates[with_guesses], rates[without], strict=True)]
        print(
            f"{name:20} {clients:6}  {spread(rates[with_guesses], 0):20} {spread(rates[without], 0):20} "
            f"{spread(ratios, 2)}",
            *(f"\n    {len(errors)} errors, the first: {errors[0]}" for _ in errors[:1]),
            flush=True,
        )
