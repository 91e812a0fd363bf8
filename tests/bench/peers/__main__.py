"""`python -m tests.bench.peers [--llama-server PATH] [--rounds N] [--only WORK,...] [--against NAME,...]`."""

import argparse
import contextlib
import random
import tempfile
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from tests.bench.peers.asking import Round, ask
from tests.bench.peers.contenders import Contender, LlamaCppPython, LlamaServerAtItsBest, LlamaServerByDefault, Ours
from tests.bench.peers.reference import Comparison, Reference, limit, reference
from tests.bench.peers.table import print_head, print_work
from tests.bench.peers.works import WORKS, Request, Way, Work

BARE_LOOP, BATCHED_BENCH = "bare loop", "batched-bench"


def main() -> None:
    options = _options()
    print_head(options.llama_server)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        contenders = _contenders(options, Path(folder))
        for contender in contenders:
            stack.enter_context(contender.running())
            ask(contender, WORKS[1], [Request("Warm up.", 8)] * 8)
            contender.pause()
        bench = Bench(contenders, stack.enter_context(reference()), options)
        for work in WORKS:
            if not options.only or work.name in options.only:
                bench.measure(work)


class Bench:
    """The first contender is ours."""

    def __init__(self, contenders: list[Contender], known: Reference, options: argparse.Namespace) -> None:
        self._contenders = contenders
        self._known = known
        self._rounds: int = options.rounds
        self._batched_bench: Path | None = _batched_bench(options)
        self._random = random.Random(options.seed)

    def measure(self, work: Work) -> None:
        """Run the rounds in turn, every second one in reverse, so that no contender always follows the same other."""
        contenders = [each for each in self._contenders if _takes_part(each, work)]
        rounds_by_name: dict[str, list[Round]] = defaultdict(list)
        compared: dict[str, Comparison] = defaultdict(Comparison)
        for number in range(self._rounds):
            requests = work.make(self._random)
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                with contender.on_turn():
                    rounds_by_name[contender.name].append(ask(contender, work, requests))
            last = {contender.name: rounds_by_name[contender.name][-1] for contender in contenders}
            if number == 0 or work.in_bare_loop:
                self._check(work, requests, last, compared)
            if work.in_bare_loop:
                rounds_by_name[BARE_LOOP].append(Round(seconds=self._known.seconds, new_tokens=_new_tokens(requests)))
            if work.in_batched_bench and self._batched_bench:
                prompt_tokens = round(sum(last[Ours.name].prompt_tokens) / len(requests))
                rounds_by_name[BATCHED_BENCH].append(
                    limit(self._batched_bench, work, prompt_tokens, requests[0].new_tokens)
                )
        print_work(work, rounds_by_name, compared)

    def _check(
        self, work: Work, requests: list[Request], rounds: dict[str, Round], compared: dict[str, Comparison]
    ) -> None:
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


def _new_tokens(requests: list[Request]) -> int:
    return sum(request.new_tokens for request in requests)


def _takes_part(contender: Contender, work: Work) -> bool:
    """A server of one request at a time has the same rate in the other workloads, and needs minutes for each."""
    return not isinstance(contender, LlamaCppPython) or work.in_batched_bench


def _contenders(options: argparse.Namespace, folder: Path) -> list[Contender]:
    others: list[Contender] = []
    if options.llama_server:
        others += [
            LlamaServerAtItsBest(folder, options.llama_server),
            LlamaServerByDefault(folder, options.llama_server),
        ]
    if options.llama_cpp_python:
        others.append(LlamaCppPython(folder, options.llama_cpp_python))
    return [Ours(folder), *(each for each in others if not options.against or each.name in options.against)]


def _batched_bench(options: argparse.Namespace) -> Path | None:
    """Return its path, which is beside the server's, or None where it does not take part."""
    if not options.llama_server or (options.against and BATCHED_BENCH not in options.against):
        return None
    path: Path = options.llama_server.with_name("llama-batched-bench")
    return path if path.exists() else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--llama-server", type=_file, help="llama.cpp's llama-server; llama-batched-bench beside it")
    parser.add_argument("--llama-cpp-python", type=_file, help="folder in which its server's libraries are installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="of the prompts")
    parser.add_argument("--only", type=_names([work.name for work in WORKS]), help="only these workloads")
    others = [LlamaServerAtItsBest.name, LlamaServerByDefault.name, LlamaCppPython.name, BATCHED_BENCH]
    parser.add_argument("--against", type=_names(others), help="only these, beside ours and the bare loop")
    return parser.parse_args()


def _file(text: str) -> Path:
    path = Path(text).resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return path


def _names(known: Collection[str]) -> "type[list[str]]":
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read  # type: ignore[return-value]


if __name__ == "__main__":
    main()
