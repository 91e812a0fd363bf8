"""The rounds of one model file: who takes part, in which order, and what is kept."""

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path

from tests.bench.peers.asking import Round, ask
from tests.bench.peers.contenders import Contender, LlamaCppPython, Ours
from tests.bench.peers.reference import (
    BARE_LOOP,
    BARE_LOOP_OF_ONE,
    BATCHED_BENCH,
    Comparison,
    Reference,
    limit,
)
from tests.bench.peers.table import main_ratios, print_work
from tests.bench.peers.works import Request, Way, Work


class Bench:
    """All workloads on one file. The first contender is ours.

    known: the bare loop in a context of as many streams as ours. of_one_stream: in the narrowest one.
    """

    def __init__(
        self,
        model: Path,
        contenders: list[Contender],
        known: Reference,
        of_one_stream: Reference,
        options: argparse.Namespace,
    ) -> None:
        self._model = model
        self._contenders = contenders
        self._known = known
        self._of_one_stream = of_one_stream
        self._rounds: int = options.rounds
        self._batched_bench: Path | None = _batched_bench(options)
        self._random = random.Random(options.seed)

    def measure(self, work: Work) -> dict[str, list[float]]:
        """Run the rounds in turn, every second one in reverse, so that no contender always follows the same other.

        Returns:
            The ratios of ours to each other contender.
        """
        contenders = [each for each in self._contenders if _takes_part(each, work)]
        rounds_by_name: dict[str, list[Round]] = defaultdict(list)
        compared: dict[str, Comparison] = defaultdict(Comparison)
        for number in range(self._rounds):
            requests = work.make(self._random)
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                with contender.on_turn():
                    done = ask(contender, work, requests)
                rounds_by_name[contender.name].append(done)
                where = f"{work.name}, round {number + 1} of {self._rounds}"
                print(f"{where}: {contender.name} {done.tokens_per_second:.1f} tok/s", file=sys.stderr)
            last = {contender.name: rounds_by_name[contender.name][-1] for contender in contenders}
            if number == 0 or work.in_bare_loop:
                prompts = self._check(work, requests, last, compared)
            if work.in_bare_loop:
                rounds_by_name[BARE_LOOP].append(_round(self._known, requests))
            if work.in_bare_loop and work.clients == 1:
                self._of_one_stream.run(work, requests, prompts)
                rounds_by_name[BARE_LOOP_OF_ONE].append(_round(self._of_one_stream, requests))
            if work.in_batched_bench and self._batched_bench:
                prompt_tokens = round(sum(last[Ours.name].prompt_tokens) / len(requests))
                rounds_by_name[BATCHED_BENCH].append(
                    limit(self._batched_bench, self._model, work, prompt_tokens, requests[0].new_tokens)
                )
        print_work(work, rounds_by_name, compared)
        return main_ratios(work, rounds_by_name)

    def _check(
        self, work: Work, requests: list[Request], rounds: dict[str, Round], compared: dict[str, Comparison]
    ) -> list[list[int]]:
        """Compare the texts with the bare loop's. Returns the tokens of the prompts."""
        ours = self._contenders[0]
        assert isinstance(ours, Ours)
        with ours.on_turn():
            prompts = ours.prompts(rounds[ours.name].conversations or [request.prompt for request in requests])
        self._known.run(work, requests, prompts)
        for name, result in rounds.items():
            if name == LlamaCppPython.name or (work.way is Way.CHAT and name != ours.name):
                continue  # its texts end at other tokens, and a chat differs from its first different word on
            if result.prompt_tokens:
                assert result.prompt_tokens == list(map(len, prompts)), f"{name} has read other prompts than ours"
            compared[name].add(self._known.compare(result.texts))
        return prompts


def _round(known: Reference, requests: list[Request]) -> Round:
    return Round(seconds=known.seconds, new_tokens=sum(request.new_tokens for request in requests))


def _takes_part(contender: Contender, work: Work) -> bool:
    """A server of one request at a time has the same rate in the other workloads, and needs minutes for each."""
    return not isinstance(contender, LlamaCppPython) or work.in_batched_bench


def _batched_bench(options: argparse.Namespace) -> Path | None:
    """Return its path, which is beside the server's, or None where it does not take part."""
    if not options.llama_server or (options.against and BATCHED_BENCH not in options.against):
        return None
    path: Path = options.llama_server.with_name("llama-batched-bench")
    return path if path.exists() else None
