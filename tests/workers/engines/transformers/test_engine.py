"""The engine in its loop: slots, chunks, log-probabilities, lengths."""

import json
import math
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import ModelUnavailable, PromptTooLong, UnsupportedParameter
from app.jobs.job import FinishReason, Status
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, make_engine, refusal, request, serving
from tests.workers.engines.transformers.models import CONTEXT, tiny
from workers.engines.base import Chunk
from workers.engines.transformers.engine import HuggingfaceEngine

PROMPT = "the quick brown fox"


def test_a_slot_that_is_freed_early_is_filled_and_holes_are_closed(llama: HuggingfaceEngine) -> None:
    lengths = [3, 40, 2, 35, 1, 30, 5, 25]
    requests = [request(f"{PROMPT} {n}", max_tokens=n, ignore_eos=True) for n in lengths]
    tokens = [result.tokens for result in complete(llama, *requests)]
    assert tokens == [generated(llama, f"{PROMPT} {n}", max_new_tokens=n, suppress_tokens=[256]) for n in lengths]


@pytest.mark.parametrize(
    ("params", "is_deterministic"),
    [
        ({}, True),
        ({"temperature": 0.7}, False),
        ({"temperature": 0.7, "seed": 5}, True),
        ({"num_beams": 3}, True),
        ({"num_beams": 3, "do_sample": True}, False),
        ({"max_time": 5.0}, False),
    ],
)
def test_a_request_is_deterministic_unless_it_is_sampled_without_a_seed_or_ended_by_the_clock(
    llama: HuggingfaceEngine, params: dict[str, object], is_deterministic: bool
) -> None:
    prompt = llama.prepare(request(PROMPT, **params))
    assert prompt.is_deterministic is is_deterministic
    assert (prompt.solo is not None) is ("num_beams" in params)


def test_a_slot_moved_to_another_keeps_its_text(llama: HuggingfaceEngine) -> None:
    expected = generated(llama, PROMPT, max_new_tokens=6, suppress_tokens=[256])
    prompt = llama.prepare(request(PROMPT, max_tokens=6, ignore_eos=True, no_repeat_ngram_size=50))
    tokens: list[int] = []
    for number in range(6):
        slot = 4 if number < 3 else 1
        if number == 3:
            llama.slot_cache.move(4, 1)
        chunk_tokens = prompt.tokens if not tokens else tokens[-1:]
        position = 0 if not tokens else len(prompt.tokens) + len(tokens) - 1
        chunk = Chunk(slot=slot, tokens=chunk_tokens, position=position, samples=True, prompt=prompt, generated=tokens)
        tokens.append(llama.step([chunk])[0].token)
    assert tokens == expected
    assert llama.used_cells() == len(prompt.tokens) + 5
    llama.release(1, prompt)
    assert llama.used_cells() == 0


def test_a_prefix_is_computed_once_and_the_texts_are_those_of_generate(llama: HuggingfaceEngine) -> None:
    prefix = "a system prompt that everybody begins with, at some length; " * 2
    texts = [f"{prefix}{number}" for number in range(10)]
    with serving(llama) as service:
        for text in texts:
            service.submit(text, request(text, max_tokens=12, no_repeat_ngram_size=4))
        tokens = [result.tokens for result in service.wait(*texts)]
        again = request(texts[3] + " and more", max_tokens=12, no_repeat_ngram_size=4)
        service.submit("again", again)
        (more,) = service.wait("again")
    expected = [generated(llama, text, max_new_tokens=12, no_repeat_ngram_size=4) for text in texts]
    assert tokens == expected
    assert more.tokens == generated(llama, texts[3] + " and more", max_new_tokens=12, no_repeat_ngram_size=4)
    assert max(service.cached.values()) >= len(prefix) - 1, "a slot computes again what another slot holds"


def test_a_nan_in_one_slot_reaches_no_later_sequence(llama: HuggingfaceEngine) -> None:
    expected = generated(llama, PROMPT, max_new_tokens=6)
    assert llama._slots is not None
    with torch.inference_mode():
        for layer in llama._slots.cache.layers:
            layer.keys.fill_(math.nan)
            layer.values.fill_(math.nan)
    llama.reset()
    assert complete(llama, request(PROMPT, max_tokens=6))[0].tokens == expected


@pytest.mark.parametrize("budget", [1, 7, 512])
def test_prompts_are_prefilled_within_any_budget(budget: int) -> None:
    engine = make_engine(tiny("llama"), n_batch=budget, slots=3)
    prompts = [PROMPT * count for count in (1, 5, 3)]
    results = complete(engine, *(request(text, max_tokens=5) for text in prompts))
    assert [result.tokens for result in results] == [generated(engine, text, max_new_tokens=5) for text in prompts]


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(llama: HuggingfaceEngine) -> None:
    for architecture in ("llama", "mamba"):
        error = refusal(engine_of(architecture), "x" * 9000)
        assert isinstance(error, PromptTooLong)
    detail = refusal(llama, "x" * 9000).detail
    assert f"length is {CONTEXT} tokens." in detail and "9001 tokens (9000 in prompt, 1 in" in detail


def test_a_prompt_one_short_of_the_context_gets_one_token(llama: HuggingfaceEngine) -> None:
    (result,) = complete(llama, request("x" * (CONTEXT - 1), ignore_eos=True))
    assert (len(result.tokens), result.reason) == (1, FinishReason.LENGTH)


def test_requests_beyond_the_slots_wait_and_all_of_them_complete() -> None:
    engine = make_engine(tiny("llama"), slots=2)
    results = complete(engine, *(request("x" * 200, max_tokens=50, ignore_eos=True) for _ in range(7)))
    assert {len(each.tokens) for each in results} == {50}


def test_logprobs_are_of_the_models_own_logits(llama: HuggingfaceEngine) -> None:
    (result, _) = complete(
        llama,
        request(PROMPT, max_tokens=4, logprobs=3, temperature=0.9, seed=1, logit_bias={"65": 3.0}),
        request("beside it", max_tokens=9),
    )
    ids = torch.tensor([llama._vocabulary.tokenize(PROMPT) + result.tokens])
    logprobs = llama._loaded.model(ids).logits[0].log_softmax(-1)[-5:-1]
    for row, token, entry in zip(logprobs, result.tokens, result.logprobs, strict=True):
        assert entry.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(3).values.tolist()  # parts of characters that look alike share a name
        assert all(min(abs(value - other) for other in best) < 1e-4 for value in entry.top.values())
        assert next(iter(entry.top.values())) == pytest.approx(best[0], abs=1e-4)


def test_echo_puts_the_prompt_and_its_logprobs_first(llama: HuggingfaceEngine) -> None:
    text = PROMPT * 4  # more than one chunk
    (result, _) = complete(
        llama, request(text, max_tokens=3, echo=True, logprobs=1), request("beside it", max_tokens=9)
    )
    assert result.text.startswith(text)
    tokens = llama._vocabulary.tokenize(text)
    assert len(result.logprobs) == len(tokens) + len(result.tokens)
    assert result.logprobs[0].logprob is None
    expected = llama._loaded.model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    for position in (1, 40, len(tokens) - 1):
        logprob = result.logprobs[position].logprob
        assert logprob == pytest.approx(float(expected[position - 1, tokens[position]]), abs=1e-4)


def test_another_attempt_continues_after_the_tokens_of_the_first(llama: HuggingfaceEngine) -> None:
    job_request = request(PROMPT, max_tokens=16, no_repeat_ngram_size=2, ignore_eos=True)
    (whole,) = complete(llama, job_request)
    with serving(llama) as service:
        service.submit("rest", job_request, earlier=whole.tokens[:7])
        (rest,) = service.wait("rest")
    assert whole.tokens[:7] + rest.tokens == whole.tokens


def test_a_suffix_needs_a_model_that_was_trained_for_it(llama: HuggingfaceEngine) -> None:
    assert isinstance(refusal(llama, suffix="end"), UnsupportedParameter)


def test_a_prompt_without_tokens_starts_with_the_token_of_the_beginning(llama: HuggingfaceEngine) -> None:
    assert llama.prepare(request("")).tokens == [257]


def test_requests_may_be_prepared_by_many_threads_while_the_batch_runs(llama: HuggingfaceEngine) -> None:
    expected = generated(llama, PROMPT, max_new_tokens=8, repetition_penalty=1.2)
    with serving(llama) as service:

        def submit(number: int) -> None:
            service.submit(f"s{number}", request(PROMPT, repeat_penalty=1.2, max_tokens=8))

        threads = [threading.Thread(target=submit, args=[number]) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results = service.wait(*service.results)
    assert [result.tokens for result in results] == [expected] * 24
    assert {result.status for result in results} == {Status.SUCCEEDED}


def test_a_step_that_fails_costs_its_batch_and_nothing_after_it(
    llama: HuggingfaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert llama._slots is not None
    expected = generated(llama, PROMPT, max_new_tokens=8)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the device is gone")

    with serving(llama) as service:
        monkeypatch.setattr(llama._slots, "_model", fail)
        service.submit("bad", request(PROMPT, max_tokens=8))
        (bad,) = service.wait("bad")
        monkeypatch.undo()
        service.submit("good", request(PROMPT, max_tokens=8))
        (good,) = service.wait("good")
    assert (bad.error and bad.error.code, good.tokens) == ("engine_error", expected)


def damaged_copy(folder: Path, weights: dict[str, torch.Tensor], **config: object) -> Path:
    """Return a copy of the tiny llama with some weights replaced, and with more in its configuration."""
    copy = Path(shutil.copytree(tiny("llama"), folder / "model"))
    file = copy / "model.safetensors"
    save_file(load_file(file) | weights, file, metadata={"format": "pt"})
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(settings | config))
    return copy


def test_weights_of_types_that_do_not_compute_together_are_refused_in_one_line(tmp_path: Path) -> None:
    weights = load_file(tiny("llama") / "model.safetensors")
    half = {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items() if "proj" in name}
    quantization = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    folder = damaged_copy(tmp_path, half, quantization_config=quantization)
    with pytest.raises(ModelUnavailable, match=r"cannot be used \(RuntimeError: .*Float8_e4m3fn") as caught:
        make_engine(folder)
    assert "\n" not in caught.value.detail


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    name = "model.norm.weight"
    broken = torch.full_like(load_file(tiny("llama") / "model.safetensors")[name], float("nan"))
    with pytest.raises(ModelUnavailable, match="computes no numbers"):
        make_engine(damaged_copy(tmp_path, {name: broken}))
