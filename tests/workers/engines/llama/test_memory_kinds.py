"""Models with other memory than keys and values of every position: windows, states, and both.

Their texts are those that they have alone, and a chat continues after what its last turn has left.
"""

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from app.config.settings import Config, WorkerConfig
from app.jobs.job import JobRequest
from tests.workers.batching.loop_host import Collected, Host, make_sequence
from tests.workers.engines.llama.driver import GREEDY, complete, request
from tests.workers.engines.llama.tiny_models import ARCHITECTURES, HEAD, WINDOW, write_tiny
from tests.workers.engines.speculating import Completion, run_requests
from workers.batching.loop import BatchLoop
from workers.engines.llama.checkpoints import PER_SLOT
from workers.engines.llama.context import MemoryKind
from workers.engines.llama.engine import LlamaEngine
from workers.engines.runner import Report

SYSTEM = "<s>You are a keeper of lights. Count the ships that pass, and write down each of them.</s>"
CELLS = 512


def load(path: Path, slots: int | None = 4) -> LlamaEngine:
    return LlamaEngine(
        Config(
            model_name="tiny",
            setup_params={"path": str(path)},
            model_params={"n_ctx": CELLS, "n_threads": 1},
            worker=WorkerConfig(slots=slots),
        ),
        lambda *_: None,
    )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    engine = load(write_tiny(tmp_path_factory.mktemp("tiny") / f"{request.param}.gguf", request.param))
    yield engine
    engine.close()


def has_states(engine: LlamaEngine) -> bool:
    return engine._memory.kind is MemoryKind.STATES


Turn = tuple[JobRequest, list[int]]


def turns(engine: LlamaEngine, count: int) -> list[Turn]:
    """The requests of a chat, and the tokens of each answer if the whole prompt is computed."""
    chat, chat_turns = SYSTEM, list[Turn]()
    for number in range(count):
        chat += f"<u>What of ship number {number}, and of the {number * 7} others?</u><a>"
        asked = request(chat, max_tokens=12, **GREEDY)
        answer = complete(engine, chat, max_tokens=12, **GREEDY)
        chat_turns.append((asked, answer.tokens))
        chat += answer.text + "</a>"
    return chat_turns


def check_turns(chat_turns: list[Turn], completions: list[Completion]) -> None:
    assert [each.tokens for each in completions] == [tokens for _, tokens in chat_turns]
    for before, now in pairwise(completions):
        assert now.usage.cached_tokens >= before.usage.prompt_tokens, "the last turn's prompt is not computed again"


def test_the_memory_is_asked_what_it_can_do(engine: LlamaEngine) -> None:
    is_recurrent = engine._model.architecture != "gemma3"
    assert engine._memory.kind is (MemoryKind.STATES if is_recurrent else MemoryKind.WHOLE)
    assert engine.shares_prefixes
    assert engine.verifies_drafts is not is_recurrent
    assert (engine.checkpoint_cache is not None) is is_recurrent


def test_the_memory_of_all_layers_is_counted(engine: LlamaEngine) -> None:
    """From the shapes: keys and values are two bytes a number, states four."""
    heads = {"gemma3": 4, "mamba": 0, "rwkv7": 0, "lfm2": 1, "jamba": 1}[engine._model.architecture]
    state = {
        "gemma3": 0,
        "mamba": 4 * (3 * 128 + 16 * 128) * 4,  # layers, a convolution's last inputs and the state
        "rwkv7": 4 * (2 * 64 + 64 * 64) * 4,
        "lfm2": 3 * (2 * 64) * 4,
        "jamba": 3 * (3 * 128 + 16 * 128) * 4,
    }[engine._model.architecture]
    assert engine._memory.cell_bytes == pytest.approx(heads * HEAD * 2 * 2, abs=24)
    assert engine._memory.state_bytes == pytest.approx(state, abs=200)


def test_a_text_is_the_same_alone_and_among_others(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [f"{SYSTEM[: 20 * number]}<u>Number {number} of seven</u>" for number in range(7)]
    alone = [complete(engine, prompt, max_tokens=20, **GREEDY).tokens for prompt in prompts]
    requests = [request(prompt, max_tokens=20, **GREEDY) for prompt in prompts]
    together, _ = run_requests(engine, *requests, speculates=False, monkeypatch=monkeypatch)
    assert [each.tokens for each in together] == alone
    assert len(set(map(tuple, alone))) > 1, "the texts depend on the prompts"


def test_a_chat_continues_after_its_last_turn(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_turns = turns(engine, 4)
    completions, _ = run_requests(
        engine, *(asked for asked, _ in chat_turns), speculates=True, monkeypatch=monkeypatch, one_by_one=True
    )
    check_turns(chat_turns, completions)
    assert completions[-1].usage.prompt_tokens > 5 * WINDOW


def test_chats_that_take_turns_continue_their_own(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_turns = turns(engine, 3)
    others = [(request("<s>Of the sea" + asked.prompt, max_tokens=5, **GREEDY)) for asked, _ in chat_turns]
    mixed = [each for (asked, _), other in zip(chat_turns, others, strict=True) for each in (asked, other)]
    completions, _ = run_requests(engine, *mixed, speculates=False, monkeypatch=monkeypatch, one_by_one=True)
    check_turns(chat_turns, completions[::2])
    alone = [complete(engine, other.prompt, max_tokens=5, **GREEDY).tokens for other in others]
    assert [each.tokens for each in completions[1::2]] == alone


def test_a_turn_that_is_asked_again_continues_after_the_turn_before(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_turns = turns(engine, 3)
    asked = [chat_turns[0][0], chat_turns[1][0], chat_turns[1][0], chat_turns[2][0], chat_turns[1][0]]
    completions, _ = run_requests(engine, *asked, speculates=False, monkeypatch=monkeypatch, one_by_one=True)
    assert [each.tokens for each in completions] == [chat_turns[number][1] for number in (0, 1, 1, 2, 1)]
    for again in completions[1:4]:
        assert again.usage.cached_tokens >= completions[0].usage.prompt_tokens


def test_what_a_canceled_sequence_leaves_continues_correctly(engine: LlamaEngine) -> None:
    (first, _), (second, expected) = turns(engine, 2)
    collected, has_begun = Collected(), threading.Event()

    def publish(reports: Sequence[Report]) -> None:
        collected.publish(reports)
        has_begun.set()

    canceled = make_sequence("canceled", engine.prepare(request(first.prompt, max_tokens=200, ignore_eos=True)))
    loop = BatchLoop(engine, Host(publish))
    loop.submit(canceled)
    loop.start()
    assert has_begun.wait(10)
    canceled.job.cancel_requested = True
    loop.wake()
    collected.wait_for("canceled")
    next_turn = make_sequence("next", engine.prepare(second))
    loop.submit(next_turn)
    collected.wait_for("next")
    loop.stop()
    engine.reset()
    assert next_turn.generated == expected
    assert next_turn.cached_tokens >= len(canceled.prompt.tokens)


def test_a_slot_keeps_few_checkpoints_and_an_emptied_one_none(engine: LlamaEngine) -> None:
    if not has_states(engine):
        pytest.skip("it is cut anywhere")
    context = engine._generation
    for position in range(5):
        context.decode([5 + position], [position], [2], [False])
        context.checkpoint(2)
    assert [context.resumable(2, tokens) for tokens in (5, 4, 3)] == [5, 4, 0]
    assert PER_SLOT == 2
    context.move(2, 0)
    assert [context.resumable(0, 4), context.resumable(2, 4)] == [4, 0]
    context.forget(0)
    assert context.resumable(0, 4) == 0 == context.used_cells()


def test_a_state_is_returned_bit_for_bit(engine: LlamaEngine) -> None:
    if not has_states(engine):
        pytest.skip("it is cut anywhere")
    context, tokens = engine._generation, [5, 70, 271, 9, 40, 33]
    for position, token in enumerate(tokens[:4]):
        context.decode([token], [position], [1], [False])
    context.checkpoint(1)
    first = [context.decode([token], [at], [1], [True]).copy() for at, token in enumerate(tokens[4:], 4)]
    context.copy(1, 3, 4)
    context.cut(1, 4)
    for slot in (1, 3):
        again = [context.decode([token], [at], [slot], [True]).copy() for at, token in enumerate(tokens[4:], 4)]
        assert all((one == other).all() for one, other in zip(first, again, strict=True))
    context.forget_all()
