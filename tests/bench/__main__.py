"""`python -m tests.bench [--url URL] [--rounds N] [--only PART]`: all parts, or one of them."""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.bench import adapters, fairness, first_token, hop, prefix, slots, speculation, throughput
from tests.stack import SMOLLM2, Stack, engine_config, running_stack
from tests.valkey import running_valkey
from tests.workers.engines.gptq.models import quantized
from tests.workers.engines.transformers.models import smollm2

PARTS = ("throughput", "prefix", "speculation", "hop", "first_token", "adapters", "transformers", "gptq", "fairness")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--url", help="a running service on SmolLM2; without it the bench starts its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    options = parser.parse_args()
    wanted = {options.only} if options.only else set(PARTS)
    if options.url:
        throughput.measure(options.url, options.rounds)
        return
    if "throughput" in wanted:
        with service("smollm2", {**SMOLLM2, "model_params": {"n_ctx": 512}}) as stack:
            throughput.measure(stack.url, options.rounds)
            print_memory(stack)
    if "fairness" in wanted:
        fairness.measure()
    if "prefix" in wanted:
        with service("smollm2", {**SMOLLM2, "model_params": {"n_ctx": prefix.CELLS}}) as stack:
            prefix.measure(stack.url, options.rounds)
    if "first_token" in wanted:
        with service("smollm2", {**SMOLLM2, "model_params": {"n_ctx": 512}}) as stack:
            first_token.measure(stack.url, options.rounds)
    if "adapters" in wanted:
        with service("smollm2", {**SMOLLM2, "adapters": {"runtime_loading": True}}, own_models=True) as stack:
            adapters.measure(stack)
    if "speculation" in wanted:
        config = {**SMOLLM2, "model_params": {"n_ctx": 512}}
        off = {**config, "worker": {"speculation": False}}
        with service("with guesses", config) as guessing, service("without", off) as plain:
            speculation.measure(guessing.url, plain.url, options.rounds)
    if "hop" in wanted:
        with service("instant", engine_config("instant:Instant", jobs={"ttl": 60})) as stack:
            hop.measure(stack.url, options.rounds)
            print_memory(stack)
        one_process = {"server": {"processes": 1, "threads": 1100}, "jobs": {"max_queued": 2000}}
        slow = {"worker": {"slots": 32}, "model_params": {"step_seconds": 0.02}}
        with service("slow", engine_config("slow:Slow", **one_process, **slow)) as stack:
            hop.measure_waiters(stack.url)
            print_memory(stack)
    if "transformers" in wanted:
        folder = smollm2()
        with service("smollm2 in bfloat16", slots.config(folder)) as stack:
            slots.measure(stack.url, folder, options.rounds, stack.folder / "peer.log")
            print_memory(stack)
    if "gptq" in wanted:
        bits = slots.config(quantized(), model_family="gptq_llama")
        with (
            service("smollm2 in 4 bits", bits) as stack,
            service("smollm2 in bfloat16", slots.config(smollm2())) as plain,
        ):
            slots.measure_quantized(stack.url, plain.url, options.rounds)
            print_memory(stack)


@contextmanager
def service(name: str, config: dict[str, Any], *, own_models: bool = False) -> Iterator[Stack]:
    """A service of the bench's own, and how long it took to start. own_models: `models_dir` is in its folder."""
    with tempfile.TemporaryDirectory() as folder, running_valkey(Path(folder) / "valkey") as server:
        started = time.perf_counter()
        config = {**config, "models_dir": f"{folder}/models"} if own_models else config
        with running_stack(Path(folder), server.url, config) as stack:
            print(f"\n{name}: API and worker ready {time.perf_counter() - started:.2f} s after their start")
            yield stack


def print_memory(stack: Stack) -> None:
    """Resident memory of each process, MB."""
    for name, process in stack.processes.items():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        sizes = ", ".join(f"{member.memory_info().rss / 1e6:.0f}" for member in family)
        print(f" memory of {name}: {sizes} MB")


if __name__ == "__main__":
    main()
