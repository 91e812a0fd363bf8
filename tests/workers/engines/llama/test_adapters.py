"""LoRA adapters that requests choose: what each computes beside others, and that none is left behind."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from app.config.adapters import Adapter
from app.config.settings import Config
from app.errors import InvalidRequest, ModelUnavailable
from app.jobs.job import AdapterUse, JobRequest, TokenLogprob
from tests.waiting import scaled, until
from tests.workers.batching.loop_host import Collected, Host
from tests.workers.engines.llama.adapters import write_adapter
from tests.workers.engines.llama.driver import GREEDY, MODEL, generate, make_engine, request
from workers.batching.loop import BatchLoop
from workers.batching.sequence import BatchSequence
from workers.engines.llama.engine import LlamaEngine
from workers.engines.runner import Report, RunnerJob

NAMES = ("one", "two", "three", "four")
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    folder = tmp_path_factory.mktemp("adapters")
    files = {name: str(write_adapter(folder / f"{name}.gguf", seed=seed)) for seed, name in enumerate(NAMES)}
    engine = make_engine(slots=8, loras=files)
    yield engine
    engine.close()


def using(request: JobRequest, **scales: float) -> JobRequest:
    return replace(request, adapters=tuple(AdapterUse(name=name, scale=scale) for name, scale in scales.items()))


def logprobs_of(engine: LlamaEngine, **scales: float) -> list[TokenLogprob]:
    (run,) = generate(engine, using(request(PROMPT, max_tokens=2, logprobs=5, **GREEDY), **scales))
    return run.logprobs


class WithLogprobs(Collected):
    def __init__(self) -> None:
        super().__init__()
        self.logprobs: dict[str, list[TokenLogprob]] = {}

    def publish(self, updates: Sequence[Report]) -> None:
        for job, delta, _ in updates:
            self.logprobs.setdefault(job.id, []).extend(delta.logprobs if delta else ())
        super().publish(updates)


def run_together(engine: LlamaEngine, requests: dict[str, JobRequest]) -> dict[str, list[TokenLogprob]]:
    collected = WithLogprobs()
    loop = BatchLoop(engine, Host(collected.publish))
    for name, each in requests.items():
        job = RunnerJob(name, each)
        job.run = sequence = BatchSequence(job, engine.prepare(each))
        loop.submit(sequence)
    loop.start()
    collected.wait_for(*requests)
    loop.stop()
    engine.reset()
    return collected.logprobs


def test_eight_sequences_with_four_adapters_are_to_the_bit_what_each_pair_is_alone(engine: LlamaEngine) -> None:
    plain = {str(n): request(f"Number {n} is called", max_tokens=6, logprobs=5, **GREEDY) for n in range(8)}
    requests = {name: using(each, **{NAMES[int(name) % 4]: 1.0}) for name, each in plain.items()}
    together = run_together(engine, requests)
    for n in range(4):
        pair = {name: requests[name] for name in (str(n), str(n + 4))}
        alone = run_together(engine, pair)
        assert all(together[name] == alone[name] for name in pair)
    assert len({str(together[name]) for name in requests}) == 8
    assert run_together(engine, plain) != together


def test_an_adapter_chosen_by_a_request_is_to_the_bit_one_that_is_always_on(
    engine: LlamaEngine, tmp_path: Path
) -> None:
    always = make_engine(slots=8, lora_path=str(write_adapter(tmp_path / "one.gguf", seed=0)))
    assert logprobs_of(engine, one=1.0) == logprobs_of(always)
    always.close()


def test_scales_count_and_several_adapters_add_up(engine: LlamaEngine) -> None:
    results = [logprobs_of(engine, **scales) for scales in ({}, {"one": 1.0}, {"one": 0.5}, {"one": 1.0, "two": 1.0})]
    assert len({str(result) for result in results}) == 4
    assert logprobs_of(engine) == results[0], "the adapters are off again"


def test_embeddings_have_adapters_too(engine: LlamaEngine) -> None:
    (plain,), (changed,) = (
        engine.embed(["France"]),
        engine.embed(["France"], adapters=[AdapterUse(name="one", scale=1.0)]),
    )
    assert plain != changed
    assert engine.embed(["France"]) == [plain]


def test_a_text_is_embedded_while_another_computation_runs(engine: LlamaEngine) -> None:
    assert engine._context is not None
    with ThreadPoolExecutor(1) as pool, engine._model.adapters.active(engine._context.pointer):
        assert pool.submit(engine.embed, ["a text"]).result(timeout=scaled(10))


def test_a_prefix_computed_with_an_adapter_is_never_continued_without_it(engine: LlamaEngine) -> None:
    long = request("one two three four five six seven eight nine ten " * 8, max_tokens=2, logprobs=5, **GREEDY)
    alone = run_together(engine, {"fresh": long})["fresh"]
    collected = WithLogprobs()
    loop = BatchLoop(engine, Host(collected.publish))
    loop.start()
    for name, each in {"with": using(long, two=1.0), "without": long, "again": using(long, two=1.0)}.items():
        job = RunnerJob(name, each)
        job.run = sequence = BatchSequence(job, engine.prepare(each))
        loop.submit(sequence)
        collected.wait_for(name)
    loop.stop()
    engine.reset()
    cached = {name: outcome.usage.cached_tokens for name, (outcome,) in collected.outcomes.items()}
    assert (cached["with"], cached["without"]) == (0, 0) and cached["again"] > 32
    assert collected.logprobs["without"] == alone


def test_an_adapter_that_is_unloaded_is_freed_when_its_last_request_has_ended(
    engine: LlamaEngine, tmp_path: Path
) -> None:
    adapters, adapter = engine._model.adapters, Adapter(name="late", version="1")
    adapters.load(adapter, write_adapter(tmp_path / "late.gguf", seed=9), "late")
    uses = replace(request(PROMPT, max_tokens=3, **GREEDY), adapters=(AdapterUse(name="late", scale=1.0, version="1"),))
    prompt = engine.prepare(uses)
    adapters.unload("late", "1")
    with pytest.raises(InvalidRequest, match="'late' is not loaded any more"):
        engine.prepare(uses)
    assert not adapters._unused, "a request still has it"
    freed = prompt.state.adapters[0][0].pointer
    engine.release(None, prompt)
    assert not adapters._unused and all(freed not in active for active in adapters._active.values())
    assert logprobs_of(engine)  # no context has it any more


@contextmanager
def overlapping(engine: LlamaEngine) -> Iterator[Counter[int]]:
    """Compute in two threads: neither ends a computation before the other begins its next. Counts those begun."""
    assert engine._context is not None
    adapters, context = engine._model.adapters, engine._context.pointer
    stopping, begun, another_begins = threading.Event(), Counter[int](), threading.Condition()

    def compute(number: int) -> None:
        while not stopping.is_set():
            with adapters.active(context), another_begins:
                others = begun[1 - number]
                begun[number] += 1
                another_begins.notify()
                while begun[1 - number] == others and not (adapters._held_up or stopping.is_set()):
                    another_begins.wait(0.02)
                time.sleep(0.001)

    threads = [threading.Thread(target=compute, args=[number]) for number in (0, 1)]
    for thread in threads:
        thread.start()
    until(lambda: min(begun[0], begun[1]) > 2)
    try:
        yield begun
    finally:
        stopping.set()
        for thread in threads:
            thread.join(scaled(10))


def test_adapters_are_loaded_and_freed_while_computations_overlap_without_a_pause(
    engine: LlamaEngine, tmp_path: Path
) -> None:
    file, adapters = write_adapter(tmp_path / "late.gguf"), engine._model.adapters
    with overlapping(engine) as begun, ThreadPoolExecutor(1) as pool:
        for version in range(4):
            before = begun.copy()
            pool.submit(adapters.load, Adapter(name="late", version=str(version)), file, "late").result(scaled(10))
            until(lambda before=before: min(begun[one] - before[one] for one in (0, 1)) > 0)
            adapters.unload("late", str(version))
            until(lambda: not adapters._unused)


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def test_a_hundred_rounds_of_loading_and_unloading_leak_nothing(engine: LlamaEngine, tmp_path: Path) -> None:
    file = write_adapter(tmp_path / "large.gguf", rank=8)
    size = file.stat().st_size

    def round_of(version: int) -> None:
        adapter = Adapter(name="again", version=str(version))
        engine._model.adapters.load(adapter, file, "again")
        use = AdapterUse(name="again", scale=1.0, version=str(version))
        generate(engine, replace(request(PROMPT, max_tokens=1, **GREEDY), adapters=(use,)))
        engine._model.adapters.unload("again", str(version))

    for version in range(10):
        round_of(version)
    gc.collect()
    before = resident_bytes()
    for version in range(10, 110):
        round_of(version)
    gc.collect()
    assert resident_bytes() - before < 5 * size
    assert len(engine._model.adapters._by_key) == len(NAMES)


def write_header(path: Path, **values: tuple[object, gguf.GGUFValueType]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, (value, kind) in values.items():
        writer.add_key_value(
            key.replace("__", "."), value, kind, *([gguf.GGUFValueType.UINT32] if isinstance(value, list) else [])
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "no GGUF", "cut short", "a number as type", "a text as alpha", "activated"]
)
def test_an_adapter_that_would_end_llama_cpp_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path, text = tmp_path / "adapter.gguf", gguf.GGUFValueType.STRING
    match kind:
        case "no GGUF":
            path.write_bytes(b"pickle")
        case "cut short":
            path.write_bytes(write_adapter(tmp_path / "whole.gguf").read_bytes()[:3000])
        case "a number as type":
            write_header(path, general__type=(1, gguf.GGUFValueType.UINT32))
        case "a text as alpha":
            write_header(path, general__type=("adapter", text), adapter__lora__alpha=("much", text))
        case "activated":
            tokens = ([1, 2], gguf.GGUFValueType.ARRAY)
            write_header(path, general__type=("adapter", text), adapter__alora__invocation_tokens=tokens)
    with pytest.raises(ModelUnavailable, match=r"loras\.bad: ") as caught:
        make_engine(slots=1, loras={"bad": str(path)})
    assert "\n" not in caught.value.detail
    assert kind != "activated" or "(aLoRA): it is trained for what follows its invocation tokens" in caught.value.detail


def test_check_config_finds_a_missing_adapter() -> None:
    params = {"loras": {"gone": "/nowhere/adapter.gguf"}}
    with pytest.raises(ModelUnavailable, match=r"loras\.gone: there is no /nowhere"):
        LlamaEngine.check(Config(model_name="m", setup_params=MODEL, model_params=params))
