"""LoRA adapters that are loaded, used and unloaded over HTTP: how long each takes, and what is left in memory."""

import statistics
import time

import httpx
import psutil

from tests.stack import Stack
from tests.waiting import scaled
from tests.workers.engines.llama.adapters import write_adapter

ROUNDS, WARM_UP = 100, 5
RANK = 16
_SETTLED_SECONDS = 2.0


def measure(stack: Stack) -> None:
    """stack: with `adapters.runtime_loading`, and `models` in its folder as `models_dir`."""
    folder = stack.folder / "models"
    folder.mkdir(exist_ok=True)
    file = write_adapter(folder / "adapter.gguf", rank=RANK)
    worker = psutil.Process(stack.processes["worker"].pid)
    seconds: dict[str, list[float]] = {"load": [], "use": [], "unload": []}
    with httpx.Client(base_url=stack.url, timeout=scaled(60)) as http:
        for number in range(WARM_UP + ROUNDS):
            if number == WARM_UP:
                before = worker.memory_info().rss
            _timed(http, seconds["load"], "/v1/load_lora_adapter", {"lora_name": "sql", "lora_path": file.name})
            _timed(http, seconds["use"], "/v1/completions", {"model": "sql", "prompt": "SELECT", "max_tokens": 1})
            _timed(http, seconds["unload"], "/v1/unload_lora_adapter", {"lora_name": "sql"})
    time.sleep(_SETTLED_SECONDS)
    print(f"\n{ROUNDS} rounds with an adapter of {file.stat().st_size / 1e6:.0f} MB, medians")
    print("  " + ", ".join(f"{name} {statistics.median(taken) * 1000:.0f} ms" for name, taken in seconds.items()))
    print(f"  memory of the worker: {before / 1e6:.0f} MB before, {worker.memory_info().rss / 1e6:.0f} MB after")


def _timed(http: httpx.Client, seconds: list[float], path: str, body: dict[str, object]) -> None:
    started = time.perf_counter()
    http.post(path, json=body).raise_for_status()
    seconds.append(time.perf_counter() - started)
