"""The engine with the real model: batches, chunks, slots."""

from typing import Any

import llama_cpp
import pytest

from app.errors import EngineFailed, ModelUnavailable
from tests.stack import SMOLLM2_FILE
from tests.workers.engines.llama.driver import (
    GREEDY,
    MODEL,
    THREADS,
    begin,
    complete,
    finish,
    generate,
    make_engine,
    request,
    step,
)
from workers.batching.prefix_cache import common_prefix
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.prompts import DEFAULTS

PROMPTS = ["The capital of France is", "Once upon a time", "def add(a, b):\n    return", "Water boils at"]
NUMBERED = [f"{PROMPTS[number % 4]} {number}" for number in range(32)]


def test_greedy_text_is_that_of_llama_cpp_pythons_own_class(engine: LlamaEngine) -> None:
    reference = llama_cpp.Llama(str(SMOLLM2_FILE), n_ctx=512, n_threads=THREADS, flash_attn=True, verbose=False)
    for prompt in PROMPTS:
        expected: Any = reference.create_completion(prompt, max_tokens=16, temperature=0, repeat_penalty=1.0)
        assert complete(engine, prompt, max_tokens=16, **GREEDY).text == expected["choices"][0]["text"]
    reference.close()


def test_greedy_text_is_the_same_alone_and_among_31_others(engine: LlamaEngine) -> None:
    alone = [complete(engine, prompt, max_tokens=8, **GREEDY).text for prompt in NUMBERED]
    together = generate(engine, *(request(prompt, max_tokens=8, **GREEDY) for prompt in NUMBERED))
    same = [run.text == text for run, text in zip(together, alone, strict=True)]
    assert sum(same) >= 31  # rounding may decide one near tie


def test_a_seed_gives_the_same_text_alone_and_among_others(engine: LlamaEngine) -> None:
    alone = [complete(engine, prompt, max_tokens=12, seed=7).text for prompt in NUMBERED[:8]]
    together = generate(engine, *(request(prompt, max_tokens=12, seed=7) for prompt in NUMBERED[:8]))
    same = [run.text == text for run, text in zip(together, alone, strict=True)]
    assert sum(same) >= 7
    assert complete(engine, PROMPTS[1], max_tokens=12, seed=8).text != complete(engine, PROMPTS[1], max_tokens=12).text


def test_the_seed_of_the_model_params_is_the_default_seed() -> None:
    engine = make_engine(slots=1, seed=5)
    texts = {complete(engine, PROMPTS[1], max_tokens=12).text for _ in range(3)}
    assert texts == {complete(engine, PROMPTS[1], max_tokens=12, seed=5).text}
    assert engine.default_params == DEFAULTS | {"repeat_last_n": 64, "seed": 5}
    engine.close()


def test_a_prompt_prefilled_in_chunks_gives_the_text_of_a_whole_prefill(engine: LlamaEngine) -> None:
    prompt = " ".join(f"Line {number} says {number * number}." for number in range(20)) + " Line 20 says"
    whole = generate(engine, request(prompt, max_tokens=16, **GREEDY))[0]
    for size in (7, 64):
        assert generate(engine, request(prompt, max_tokens=16, **GREEDY), prefill=size)[0].tokens == whole.tokens


def test_sequences_join_and_leave_between_any_two_steps(engine: LlamaEngine) -> None:
    expected = [complete(engine, prompt, max_tokens=10, **GREEDY).text for prompt in PROMPTS]
    runs = []
    for slot, prompt in enumerate(PROMPTS):
        newcomer = begin(engine, [request(prompt, max_tokens=10, **GREEDY)], slot)[0]
        engine.start(slot, newcomer.prompt)
        runs.append(newcomer)
        step(engine, runs, prefill=3)
    assert [run.text for run in finish(engine, runs, prefill=3)] == expected


def test_a_moved_sequence_continues_as_if_it_had_not_moved(engine: LlamaEngine) -> None:
    expected = [complete(engine, prompt, max_tokens=12, **GREEDY).text for prompt in PROMPTS[:2]]
    runs = begin(engine, [request(prompt, max_tokens=12, **GREEDY) for prompt in PROMPTS[:2]], first_slot=6)
    for _ in range(5):
        step(engine, runs)
    before = engine.used_cells()
    for source, target, run in ((6, 2, runs[0]), (7, 6, runs[1])):  # the second goes where the first came from
        engine.slot_cache.move(source, target)
        run.slot = target
    assert engine.used_cells() == before
    assert [run.text for run in finish(engine, runs)] == expected


def test_a_copied_or_cut_prefix_gives_the_text_of_a_computed_one(engine: LlamaEngine) -> None:
    prefix = " ".join(f"Line {number} says {number * number}." for number in range(20))
    ends = [" Line 20 says", " The end.", " And then"]
    whole = [complete(engine, prefix + end, max_tokens=16, **GREEDY).text for end in ends]
    donor = begin(engine, [request(prefix + ends[0], max_tokens=16, **GREEDY)])[0]
    finish(engine, [donor], keep=True)
    assert engine.shares_prefixes
    copied = begin(engine, [request(prefix + end, max_tokens=16, **GREEDY) for end in ends[1:]], first_slot=3)
    for run in copied:
        shared = common_prefix(donor.prompt.tokens, run.prompt.tokens)
        engine.slot_cache.copy(donor.slot, run.slot, shared)
        run.position = shared
    again = begin(engine, [request(prefix + ends[0], max_tokens=16, **GREEDY)])[0]
    again.position = len(again.prompt.tokens) - 1
    engine.slot_cache.cut(donor.slot, again.position)
    assert [run.text for run in finish(engine, [again, *copied])] == whole


def test_a_released_slot_holds_no_cells(engine: LlamaEngine) -> None:
    runs = begin(engine, [request(prompt, max_tokens=8) for prompt in PROMPTS])
    step(engine, runs, prefill=2)  # two prompts are not read to their end
    assert engine.used_cells() == 8
    for run in runs:
        engine.release(run.slot, run.prompt)
    assert engine.used_cells() == 0
    engine.release(None, engine.prepare(request("never started")))


def test_a_failed_step_has_a_reason_and_leaves_the_engine_usable(engine: LlamaEngine) -> None:
    run = begin(engine, [request(PROMPTS[0], max_tokens=4, **GREEDY)])[0]
    run.slot = engine.limits.slots + 5
    with pytest.raises(EngineFailed, match="llama_decode failed"):
        step(engine, [run])
    engine.release(None, run.prompt)
    engine.reset()
    assert complete(engine, PROMPTS[0], max_tokens=4, **GREEDY).text.strip()


def test_ignore_eos_continues_where_the_model_would_end(engine: LlamaEngine) -> None:
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    assert len(complete(engine, chat, max_tokens=60, **GREEDY).tokens) < 60
    assert len(complete(engine, chat, max_tokens=60, ignore_eos=True, **GREEDY).tokens) == 60


def test_min_length_keeps_the_end_away_for_that_many_tokens(engine: LlamaEngine) -> None:
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    assert len(complete(engine, chat, max_tokens=100, min_length=70, **GREEDY).tokens) >= 70


def test_logit_bias_makes_and_forbids_tokens(engine: LlamaEngine) -> None:
    paris = complete(engine, PROMPTS[0], max_tokens=1, **GREEDY).tokens[0]
    assert complete(engine, PROMPTS[0], max_tokens=3, logit_bias={"100": 100}, **GREEDY).tokens == [100, 100, 100]
    assert paris not in complete(engine, PROMPTS[0], max_tokens=3, logit_bias={str(paris): -100}, **GREEDY).tokens


def test_mirostat_and_typical_and_min_p_generate(engine: LlamaEngine) -> None:
    for params in ({"mirostat": 1}, {"mirostat": 2}, {"typical_p": 0.5, "top_k": 0}, {"min_p": 0.2, "top_p": 1.0}):
        assert len(complete(engine, PROMPTS[1], max_tokens=6, ignore_eos=True, seed=1, **params).tokens) == 6


def test_a_cold_draw_is_the_greedy_choice(engine: LlamaEngine) -> None:
    greedy = complete(engine, PROMPTS[1], max_tokens=8, **GREEDY).tokens
    assert complete(engine, PROMPTS[1], max_tokens=8, temperature=0.001, repeat_penalty=1.0).tokens == greedy


def test_logprobs_are_of_the_model_not_of_the_sampler(engine: LlamaEngine) -> None:
    plain = complete(engine, PROMPTS[0], max_tokens=1, logprobs=5, **GREEDY).logprobs[0]
    pushed = complete(engine, PROMPTS[0], max_tokens=1, logprobs=5, logit_bias={"100": 100}, **GREEDY).logprobs[0]
    assert plain.logprob is not None and plain.logprob == max(plain.top.values())
    assert list(plain.top.values()) == sorted(plain.top.values(), reverse=True) and len(plain.top) == 5
    assert pushed.top == plain.top and pushed.token not in plain.top
    assert complete(engine, PROMPTS[0], max_tokens=1, logprobs=0, **GREEDY).logprobs[0].top == {}


def test_echoed_prompt_tokens_have_logprobs_whatever_the_chunks(engine: LlamaEngine) -> None:
    params = {"max_tokens": 2, "echo": True, "logprobs": 2, **GREEDY}
    whole = generate(engine, request(PROMPTS[0], **params))[0]
    assert whole.prompt.echo_text == PROMPTS[0]
    assert "".join(each.token for each in whole.prompt_logprobs) == PROMPTS[0]
    assert whole.prompt_logprobs[0].logprob is None
    assert all(each.logprob is not None and each.logprob < 0 for each in whole.prompt_logprobs[1:])
    others = request(PROMPTS[1], max_tokens=6, **GREEDY)
    chunked = generate(engine, request(PROMPTS[0], **params), others, prefill=2)[0]
    for mine, theirs in zip(chunked.prompt_logprobs, whole.prompt_logprobs, strict=True):
        assert mine.token == theirs.token and mine.logprob == pytest.approx(theirs.logprob, abs=0.05)
    assert [each.token for each in chunked.logprobs] == [each.token for each in whole.logprobs]


def test_an_echoed_prompts_logprob_is_that_of_generating_the_same_token(engine: LlamaEngine) -> None:
    generated = complete(engine, PROMPTS[0], max_tokens=3, logprobs=0, **GREEDY)
    echoed = complete(engine, PROMPTS[0] + generated.text, max_tokens=1, echo=True, logprobs=0, **GREEDY)
    for mine, theirs in zip(echoed.prompt_logprobs[-3:], generated.logprobs, strict=True):
        assert mine.token == theirs.token and mine.logprob == pytest.approx(theirs.logprob, abs=0.05)


def test_a_context_that_does_not_fit_names_the_keys_to_change() -> None:
    with pytest.raises(ModelUnavailable, match=r"model_params\.n_ctx"):
        make_engine(slots=4096, n_ctx=8192)


def test_a_training_context_exceeded_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    make_engine(slots=1, n_ctx=9000).close()
    assert "trained with" in caplog.text


def test_progress_is_reported_while_the_model_loads() -> None:
    from app.config.settings import Config, WorkerConfig

    seen: list[float | None] = []
    config = Config(model_name="SmolLM2", setup_params=MODEL, model_params={"n_ctx": 256}, worker=WorkerConfig(slots=1))
    LlamaEngine(config, lambda _, done: seen.append(done)).close()
    assert seen[0] is None and seen[-1] == pytest.approx(1.0)
