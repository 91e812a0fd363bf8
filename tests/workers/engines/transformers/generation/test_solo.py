"""Solo requests, which run in `generate()`: one at a time, turn by turn, and another worker can continue them."""

import threading
import time
from typing import Any

import pytest

from app.jobs.job import FinishReason, Status
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, generated, refusal, request, serving
from workers.engines.transformers.engine import HuggingfaceEngine

PROMPT = "lmikvsnrkfahqx"


def threads_of_generate() -> int:
    return sum(thread.name == "generate" for thread in threading.enumerate())


def test_beams_and_rows_run_beside_each_other(llama: HuggingfaceEngine) -> None:
    with serving(llama) as service:
        service.submit("beams", request(PROMPT, num_beams=4, max_tokens=40, ignore_eos=True))
        service.submit("row", request(PROMPT, max_tokens=10, ignore_eos=True))
        beams, row = service.wait("beams", "row")
        order = list(service.results)
    assert order == ["beams", "row"]
    expected = generated(llama, PROMPT, num_beams=4, max_new_tokens=40, suppress_tokens=[256])
    assert beams.tokens == expected
    assert beams.deltas == 1 or len(beams.tokens) == beams.deltas, "all of it at the end"
    assert row.tokens == generated(llama, PROMPT, max_new_tokens=10, suppress_tokens=[256])


def test_a_seed_counts_in_solo_requests_too(mamba: HuggingfaceEngine) -> None:
    first, second, other = complete(
        mamba, *(request(PROMPT, temperature=1.2, seed=seed, max_tokens=16) for seed in (5, 5, 6))
    )
    expected = generated(mamba, PROMPT, seed=5, do_sample=True, temperature=1.2, max_new_tokens=16)
    assert first.tokens == second.tokens == expected != other.tokens


def test_the_common_parameters_apply_to_solo_requests_too(mamba: HuggingfaceEngine) -> None:
    params: dict[str, Any] = {"logit_bias": {"70": 5.0}, "presence_penalty": 0.7, "min_length": 12, "max_tokens": 14}
    (result,) = complete(mamba, request(PROMPT, **params))
    assert len(result.tokens) >= 12
    (plain,) = complete(mamba, request(PROMPT, max_tokens=14))
    assert result.tokens != plain.tokens


def test_stop_strings_end_a_stream_and_its_thread(mamba: HuggingfaceEngine) -> None:
    (whole,) = complete(mamba, request(PROMPT, max_tokens=60, ignore_eos=True))
    stop = whole.text[8:10]
    (result,) = complete(mamba, request(PROMPT, stop=[stop], max_tokens=60, ignore_eos=True))
    assert (result.text, result.reason) == (whole.text[: whole.text.index(stop)], FinishReason.STOP)
    assert threads_of_generate() == 0


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}])
def test_a_canceled_request_ends_between_two_tokens_and_the_next_one_starts(
    mamba: HuggingfaceEngine, more: dict[str, Any]
) -> None:
    with serving(mamba) as service:
        job = service.submit("long", request(PROMPT, max_tokens=240, ignore_eos=True, **more))
        service.submit("next", request(PROMPT, max_tokens=5))
        time.sleep(0.2)
        job.cancel_requested = True
        long, following = service.wait("long", "next")
    assert (long.status, len(long.tokens) < 240) == (Status.CANCELED, True)
    assert following.tokens == generated(mamba, PROMPT, max_new_tokens=5)
    assert threads_of_generate() == 0


def test_a_loop_that_stops_leaves_no_generate_running(mamba: HuggingfaceEngine) -> None:
    with serving(mamba) as service:
        service.submit("long", request(PROMPT, max_tokens=240, ignore_eos=True))
        while not service.results["long"].tokens:
            time.sleep(0.005)
    assert threads_of_generate() == 0


def test_an_error_that_only_generate_detects_is_an_error_of_the_request(llama: HuggingfaceEngine) -> None:
    with serving(llama) as service:
        service.submit("bad", request(PROMPT, use_mtp=True, max_tokens=5))
        service.submit("good", request(PROMPT, max_tokens=5))
        bad, good = service.wait("bad", "good")
    assert bad.error is not None and bad.error.code == "invalid_request"
    assert good.status is Status.SUCCEEDED


def test_a_defect_in_the_middle_of_generate_is_no_error_of_the_request(
    mamba: HuggingfaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = mamba._loaded.model.forward, []

    def fails_later(*inputs: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise ValueError("a defect")
        return forward(*inputs, **named)

    with serving(mamba) as service:
        service.submit("s", request(PROMPT, max_tokens=20, ignore_eos=True))
        monkeypatch.setattr(mamba._loaded.model, "forward", fails_later)
        (result,) = service.wait("s")
    assert result.error is not None and result.error.code == "engine_error"
    assert len(result.tokens) == 3, "the earlier tokens are kept"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"min_length": 10},
        {"encoder_repetition_penalty": 1.6},
        {"encoder_no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"exponential_decay_length_penalty": [2, 1.3]},
        {"begin_suppress_tokens": [70, 71, 72]},
        {"repeat_penalty": 1.4},
        {"frequency_penalty": 0.8},
    ],
)
@pytest.mark.parametrize("architecture", ["mamba", "llama"])
def test_another_worker_continues_a_solo_request_as_if_uninterrupted(architecture: str, params: dict[str, Any]) -> None:
    engine = engine_of(architecture)
    job_request = request(PROMPT, max_tokens=16, **params)
    (whole,) = complete(engine, job_request)
    cut = len(whole.tokens) // 2
    with serving(engine) as service:
        service.submit("rest", job_request, earlier=whole.tokens[:cut], text=whole.text[:cut])
        (rest,) = service.wait("rest")
    assert whole.tokens[:cut] + rest.tokens == whole.tokens
    assert rest.reason is whole.reason


def test_a_grammar_with_beams_is_refused(llama: HuggingfaceEngine) -> None:
    error = refusal(llama, num_beams=2, grammar='root ::= "a"')
    assert "beam search" in error.detail


def test_logprobs_of_a_solo_request_are_those_of_the_models_own_logits(
    llama: HuggingfaceEngine, mamba: HuggingfaceEngine
) -> None:
    row, solo = complete(
        llama,
        request(PROMPT, max_tokens=6, logprobs=2, echo=True),
        request(PROMPT, max_tokens=6, logprobs=2, echo=True, use_cache=False),
    )
    assert [each.token for each in solo.logprobs] == [each.token for each in row.logprobs]
    for one, other in zip(solo.logprobs, row.logprobs, strict=True):
        assert (one.logprob is None) == (other.logprob is None)
        assert one.logprob is None or one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert list(one.top) == list(other.top)
    (result,) = complete(mamba, request(PROMPT, max_tokens=6, logprobs=1))
    assert len(result.logprobs) == len(result.tokens)
