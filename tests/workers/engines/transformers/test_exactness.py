"""In float32, a request in any batch has the tokens of `model.generate()`."""

import random
import time

import pytest

from app.jobs.job import Status
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, make_engine, request, serving
from tests.workers.engines.transformers.models import WINDOW, tiny

BATCHED = ["gpt2", "falcon", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "mpt"]
LENGTHS = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 4, 7, 11, 18, 29, 47]  # beyond the window, and beyond one step's budget


def prompts(seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefghijklmnop qrstuvwxyz", k=length)) for length in LENGTHS]


@pytest.mark.parametrize("architecture", BATCHED)
def test_16_joined_requests_have_the_tokens_of_generate(architecture: str) -> None:
    engine = engine_of(architecture)
    assert engine._slots is not None, "it is batched"
    requests = [request(text, max_tokens=10 + index) for index, text in enumerate(prompts())]
    batched_tokens = [result.tokens for result in complete(engine, *requests)]
    assert batched_tokens == [
        generated(engine, text, max_new_tokens=10 + index, do_sample=False) for index, text in enumerate(prompts())
    ]
    assert len({tuple(tokens[:8]) for tokens in batched_tokens}) > 8, "they differ, so that mixing them up would show"


@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])
def test_rows_that_join_while_others_prefill_and_decode_change_nothing(architecture: str) -> None:
    engine = engine_of(architecture)
    with serving(engine) as service:
        for index, text in enumerate(prompts(1)):
            service.submit(f"s{index}", request(text, max_tokens=20))
            time.sleep(0.002 * (index % 3))
        batched_tokens = [result.tokens for result in service.wait(*service.results)]
    assert batched_tokens == [generated(engine, text, max_new_tokens=20, do_sample=False) for text in prompts(1)]


def test_the_sliding_window_is_really_at_work() -> None:
    engine = engine_of("mistral")
    far, near = "x" * 10, "abcdefghijklmnopqrstuvwxyz" * 2
    assert len(near) > 2 * WINDOW  # two layers see twice as far
    one, other = complete(engine, request(far + near, max_tokens=8), request("y" * 10 + near, max_tokens=8))
    assert one.tokens == other.tokens
    one, other = complete(engine_of("llama"), *(request(start + near, max_tokens=8) for start in (far, "y" * 10)))
    assert one.tokens != other.tokens


def test_eager_attention_batches_as_well() -> None:
    engine = make_engine(tiny("mistral"), attn_implementation="eager")
    assert engine._slots is not None
    results = complete(engine, *(request(text, max_tokens=8) for text in prompts(2)))
    assert [result.tokens for result in results] == [
        generated(engine, text, max_new_tokens=8, do_sample=False) for text in prompts(2)
    ]


@pytest.mark.parametrize("architecture", ["bloom", "gpt_neo", "rwkv", "mamba"])
def test_a_model_that_slots_cannot_hold_runs_solo_with_the_same_text(architecture: str) -> None:
    engine = engine_of(architecture)
    assert engine._slots is None
    assert engine.limits.slots == 1, "further jobs wait in Redis, where other workers can take them"
    texts = prompts(3)[:5]
    results = complete(engine, *(request(text, max_tokens=12) for text in texts))
    assert [result.tokens for result in results] == [
        generated(engine, text, max_new_tokens=12, do_sample=False) for text in texts
    ]
    assert all(result.deltas == len(result.tokens) for result in results), "streamed token by token"
    assert all(result.status is Status.SUCCEEDED for result in results)


def test_the_reason_why_a_model_is_not_batched_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    make_engine(tiny("gpt_neo"))
    assert "GPTNeoForCausalLM cannot be batched (over slots its logits differ by" in caplog.text
