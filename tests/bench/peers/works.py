"""The workloads of the tables in docs/performance.md, as lists of requests that are new in every round."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tests.bench.extraction import prompts as prompts_to_be_quoted
from tests.bench.peers.prompts import WORDS, Prompts
from tests.bench.prefix import prompts as prompts_of_one_prefix

if TYPE_CHECKING:  # it loads llama.cpp
    from tests.bench.peers.models import Model


@dataclass(frozen=True, slots=True)
class Request:
    prompt: str
    new_tokens: int


class Way(StrEnum):
    """How the requests are sent."""

    AT_ONCE = "each answer in one piece"
    STREAMED = "as streams"
    CHAT = "each as the next turn of one conversation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """clients: requests in flight at once. by_time: what counts is the time to the last answer, not tokens/s.

    has_shared_prefix: the bare loop may compute it once, too.
    in_bare_loop: the bare loop runs it too, and its time counts; else it only checks the texts of one round.
    in_batched_bench: llama.cpp's batched bench runs it too, with random tokens.
    needs_template: it needs a model with a chat template. needs_smollm2: its prompts are in SmolLM2's chat format, and
    random weights cannot repeat a passage.
    """

    name: str
    title: str
    clients: int
    make: Callable[[random.Random], list[Request]]
    way: Way = Way.AT_ONCE
    by_time: bool = False
    has_shared_prefix: bool = False
    in_bare_loop: bool = False
    in_batched_bench: bool = False
    needs_template: bool = False
    needs_smollm2: bool = False

    def suits(self, model: "Model") -> bool:
        return (model.has_template or not self.needs_template) and (model.is_smollm2 or not self.needs_smollm2)


def _short(prompts: Prompts, count: int) -> Callable[[random.Random], list[Request]]:
    return lambda rng: [Request(prompt, 64) for prompt in prompts.short(count, rng)]


def _throughput(prompts: Prompts, clients: int, requests: int) -> Work:
    return Work(
        name=str(clients),
        title=f"{clients} clients, {requests} requests of 64 new tokens" if clients > 1 else "1 client, 64 new tokens",
        clients=clients,
        make=_short(prompts, requests),
        in_bare_loop=True,
        in_batched_bench=True,
    )


def _mixed(prompts: Prompts) -> Callable[[random.Random], list[Request]]:
    return lambda rng: [Request(prompt, rng.randint(8, 120)) for prompt in prompts.short(128, rng)]


def _one_prefix(rng: random.Random) -> list[Request]:
    return [Request(prompt, 16) for prompt in prompts_of_one_prefix(rng)]


def _long(prompts: Prompts) -> Callable[[random.Random], list[Request]]:
    return lambda rng: [Request(prompt, 32) for prompt in prompts.long(8, rng)]


def _chat(rng: random.Random) -> list[Request]:
    return [Request(f"Tell me about the {' and the '.join(rng.choices(WORDS, k=3))}, please.", 32) for _ in range(20)]


def _quotes(rng: random.Random) -> list[Request]:
    return [Request(prompt, 128) for prompt in prompts_to_be_quoted(4, rng)]


def works(prompts: Prompts) -> tuple[Work, ...]:
    """Return all workloads. Prefixes, chats and quotes are always generated."""
    return (
        _throughput(prompts, 1, requests=6),
        _throughput(prompts, 8, requests=16),
        _throughput(prompts, 32, requests=32),
        Work(name="mixed", title="32 clients, 128 requests of 8-120 new tokens", clients=32, make=_mixed(prompts)),
        Work(
            name="prefix",
            title="32 clients, one new prefix of 534 tokens, 16 new tokens",
            clients=32,
            make=_one_prefix,
            by_time=True,
            has_shared_prefix=True,
            in_bare_loop=True,
        ),
        Work(
            name="long",
            title=f"8 clients, prompts of {prompts.long_size}, 32 new tokens",
            clients=8,
            make=_long(prompts),
        ),
        Work(
            name="chat",
            title="a chat of 20 turns, 32 new tokens each",
            clients=1,
            make=_chat,
            way=Way.CHAT,
            by_time=True,
            needs_template=True,
        ),
        Work(
            name="stream",
            title="8 clients, 16 streams of 64 new tokens",
            clients=8,
            make=_short(prompts, 16),
            way=Way.STREAMED,
        ),
        Work(
            name="quotes",
            title="1 client, 4 passages to be repeated, 128 new tokens",
            clients=1,
            make=_quotes,
            needs_smollm2=True,
        ),
    )
