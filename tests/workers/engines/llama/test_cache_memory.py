"""The cache's memory with the real model: quantized, with flash attention and without, full and never too full."""

from collections.abc import Sequence

import psutil
import pytest

from app.errors import PromptTooLong
from app.jobs.job import FinishReason, Status
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.engines.llama.driver import GREEDY, complete, make_engine, request
from workers.batching.loop import BatchLoop
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.library import free_gpu_bytes, row_bytes
from workers.engines.llama.model_params import CacheType
from workers.engines.runner import Report

CAPITAL = "The capital of France is"
STORY = "Once upon a time there was a king who had three daughters and no sons. " * 4
HEADS = 30 * 3 * 2  # layers, KV heads, keys and values
CELLS = 4 * 2048


def test_the_size_of_keys_and_values_comes_from_ggml() -> None:
    sizes = [row_bytes(kind, 64) for kind in (CacheType.F32, CacheType.F16, CacheType.Q8_0, CacheType.Q4_0)]
    assert sizes == [256, 128, 68, 36]
    assert row_bytes(CacheType.Q8_0, 40) is None, "its blocks have 32 values"


def test_a_quantized_cache_takes_the_memory_that_was_counted_and_gives_the_same_text() -> None:
    taken, texts = {}, {}
    for kind, head_bytes in (("f16", 128), ("q8_0", 68)):
        engine = make_engine(slots=4, n_ctx=2048, type_k=kind, type_v=kind)
        before = psutil.Process().memory_info().rss
        context = engine._new_context()
        taken[kind] = psutil.Process().memory_info().rss - before
        context.close()
        assert engine._memory.cell_bytes == pytest.approx(HEADS * head_bytes, rel=0.001)
        assert taken[kind] > HEADS * head_bytes * CELLS, "all of it is there from the start"
        texts[kind] = complete(engine, CAPITAL, max_tokens=24, **GREEDY).text
        check_copied_prefix(engine)
        engine.close()
    assert all("Paris" in text for text in texts.values())
    assert texts["f16"].split()[:5] == texts["q8_0"].split()[:5]
    assert taken["f16"] - taken["q8_0"] == pytest.approx(HEADS * (128 - 68) * CELLS, rel=0.15)


def check_copied_prefix(engine: LlamaEngine) -> None:
    """Check that a prefix copied to another slot continues like a computed one."""
    collected = Collected()
    loop = BatchLoop(engine, Host(collected.publish))
    loop.start()
    for name in ("computed", "copied"):
        loop.submit(make_sequence(name, engine.prepare(request(STORY, max_tokens=12, **GREEDY))))
    collected.wait_for("computed", "copied")
    loop.stop()
    assert collected.texts["computed"] == collected.texts["copied"] != ""
    engine.reset()


def test_flash_attention_can_be_chosen_and_changes_no_greedy_text(engine: LlamaEngine) -> None:
    for flash_attn in (True, False):
        other = make_engine(slots=1, flash_attn=flash_attn)
        text = complete(other, CAPITAL, max_tokens=8, **GREEDY).text
        assert text == complete(engine, CAPITAL, max_tokens=8, **GREEDY).text
        other.close()


def test_without_a_gpu_nothing_lies_on_one(engine: LlamaEngine) -> None:
    if free_gpu_bytes():
        pytest.skip("there is a GPU")
    model = engine._model
    assert model.gpu_share == 0.0
    assert model.mapped_bytes == pytest.approx(model.path.stat().st_size, rel=0.05)


def test_sequences_wait_for_a_full_cache_and_none_gets_more_than_its_slot() -> None:
    engine = make_engine(slots=2, n_ctx=64)
    collected, most = Collected(), [0]

    def publish(updates: Sequence[Report]) -> None:
        collected.publish(updates)
        most[0] = max(most[0], engine.used_cells())

    with pytest.raises(PromptTooLong, match=r"length is 64 tokens.* 65 tokens"):
        engine.prepare(request(" a" * 64))
    loop = BatchLoop(engine, Host(publish))
    jobs = [
        make_sequence(str(length), engine.prepare(request(" a" * length, max_tokens=1000, ignore_eos=True)))
        for length in (63, 1, 62, 20, 63)
    ]
    for job in jobs:
        loop.submit(job)
    loop.start()
    collected.wait_for(*{job.id for job in jobs})
    loop.stop()
    for job in jobs:
        assert job.outcome is not None and job.outcome.status is Status.SUCCEEDED
        assert job.outcome.finish_reason is FinishReason.LENGTH
        assert len(job.prompt.tokens) + len(job.generated) == 64
    assert 64 < most[0] <= 2 * 64
    engine.close()
