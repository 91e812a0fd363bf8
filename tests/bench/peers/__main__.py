"""`python -m tests.bench.peers --help`."""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from app.errors import ModelUnavailable
from tests.bench.peers.asking import ask
from tests.bench.peers.bench import Bench
from tests.bench.peers.contenders import (
    Contender,
    LlamaCppPython,
    LlamaServerAtItsBest,
    LlamaServerByDefault,
    Ours,
    Setup,
)
from tests.bench.peers.leftovers import Refused, mark_children, refuse_leftovers, refuse_taken_ports
from tests.bench.peers.models import Model, model_set
from tests.bench.peers.options import SET, read_options
from tests.bench.peers.prompts import GeneratedPrompts, LinesOfFile, Prompts
from tests.bench.peers.reference import reference
from tests.bench.peers.summary import Ratios, summary
from tests.bench.peers.table import print_head
from tests.bench.peers.works import Request, works


def main() -> None:
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the servers would live on
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    kinds = _kinds(options)
    try:
        refuse_leftovers([options.llama_server] if options.llama_server else [])
        refuse_taken_ports(options.port + kind.port_offset for kind in kinds)
        models = [Model.read(path) for path in _files(options)]
    except (Refused, ModelUnavailable) as error:
        sys.exit(f"make bench-peers: {error}")
    mark_children()
    print_head(options.llama_server)
    ratios_by_file: dict[str, Ratios] = {}
    try:
        for model in models:
            _measure(model, kinds, options, ratios_by_file)
    finally:
        print(f"\n{summary(ratios_by_file, _prompts(options).long_size)}")


def _measure(
    model: Model, kinds: list[type[Contender]], options: argparse.Namespace, ratios_by_file: dict[str, Ratios]
) -> None:
    """Run all workloads on one file, with the same prompts as on the others."""
    title = str(model.path) if model.path.name in ratios_by_file else model.path.name
    print(f"\n## {title}")
    print("starting the servers", file=sys.stderr)
    ratios = ratios_by_file[title] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        setup = Setup(
            model=model.path,
            folder=Path(folder),
            first_port=options.port,
            llama_server=options.llama_server,
            llama_cpp_python=options.llama_cpp_python,
        )
        contenders = [kind(setup) for kind in kinds]
        warm_up, *_ = all_works = works(_prompts(options))
        for contender in contenders:
            stack.enter_context(contender.running())
            ask(contender, warm_up, [Request("Warm up.", 8)] * 8)
            contender.pause()
        bench = Bench(
            model.path,
            contenders,
            stack.enter_context(reference(model.path)),
            stack.enter_context(reference(model.path, sequences=1)),
            options,
        )
        for work in all_works:
            if options.only and work.name not in options.only:
                continue
            if work.suits(model):
                for name, values in bench.measure(work).items():
                    ratios[work.name, name] = values
            else:
                print(f"\n{work.name}: left out, it needs {'SmolLM2' if work.needs_smollm2 else 'a chat template'}")


def _kinds(options: argparse.Namespace) -> list[type[Contender]]:
    others: list[type[Contender]] = []
    if options.llama_server:
        others += [LlamaServerAtItsBest, LlamaServerByDefault]
    if options.llama_cpp_python:
        others.append(LlamaCppPython)
    return [Ours, *(kind for kind in others if not options.against or kind.name in options.against)]


def _files(options: argparse.Namespace) -> Iterator[Path]:
    for name in options.model:
        if name == SET:
            yield from model_set(options.set_folder)
        else:
            yield name


def _prompts(options: argparse.Namespace) -> Prompts:
    return LinesOfFile(options.lines) if options.lines else GeneratedPrompts()


if __name__ == "__main__":
    main()
