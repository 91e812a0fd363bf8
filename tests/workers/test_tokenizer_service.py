"""TokenizerClient beside jobs, asked and answered through a real Valkey."""

import threading
import time
from collections.abc import Iterator

import pytest

from app.config.settings import Config
from app.errors import EngineFailed, InvalidRequest, NoWorker
from app.jobs import keys, tokenizer_rpc
from app.jobs.redis_client import RedisClient, connect
from app.jobs.tokenizer_rpc import TokenizerCall, TokenizerClient, TokenizerOperation
from tests.engines.instant import Instant
from tests.waiting import scaled
from workers.tokenizer_service import TokenizerService

ENGINE = Instant(Config(model_name="m"), lambda *_: None)


@pytest.fixture
def answers(redis_client: RedisClient) -> Iterator[TokenizerService]:
    answers = TokenizerService(redis_client, "m", ENGINE)
    answers.start()
    yield answers
    answers.stop()


@pytest.fixture
def asker(redis_url: str, redis_client: RedisClient) -> TokenizerClient:
    redis_client.set(keys.alive("m"), "somebody")
    return TokenizerClient(connect(redis_url), "m")


def test_a_question_is_answered_and_nothing_is_left_of_it(
    asker: TokenizerClient, answers: TokenizerService, redis_client: RedisClient
) -> None:
    assert asker.ask(TokenizerOperation.TOKENIZE, {"text": "ab", "add_special": True}) == [0, 97, 98]
    assert asker.ask(TokenizerOperation.DETOKENIZE, {"tokens": [97, 98]}) == "ab"
    assert redis_client.execute_command("KEYS", "llm:[qa]*") == [keys.alive("m")]


def test_many_ask_at_once_and_each_gets_its_own_answer(asker: TokenizerClient, answers: TokenizerService) -> None:
    found: dict[int, object] = {}

    def ask(number: int) -> None:
        found[number] = asker.ask(TokenizerOperation.DETOKENIZE, {"tokens": [number]})

    threads = [threading.Thread(target=ask, args=[97 + number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(10))
    assert found == {97 + number: chr(97 + number) for number in range(20)}


def test_what_the_worker_finds_wrong_is_raised_where_it_was_asked(
    asker: TokenizerClient, answers: TokenizerService
) -> None:
    with pytest.raises(InvalidRequest, match="no template") as caught:
        asker.ask(TokenizerOperation.TOKENIZE, {"chat": {"messages": []}, "add_special": True})
    assert list(caught.value.errors) == ["messages"]


def test_a_defect_of_the_engine_fails_one_question_and_tells_nothing_of_it(
    asker: TokenizerClient, answers: TokenizerService
) -> None:
    with pytest.raises(EngineFailed, match="the worker's log says more"):
        asker.ask(TokenizerOperation.DETOKENIZE, {"tokens": ["secret"]})
    assert asker.ask(TokenizerOperation.DETOKENIZE, {"tokens": [97]}) == "a"


def test_without_a_worker_nobody_waits(redis_url: str) -> None:
    with pytest.raises(NoWorker, match="no worker serves 'm'"):
        TokenizerClient(connect(redis_url), "m").ask(TokenizerOperation.DETOKENIZE, {"tokens": []})


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(
    asker: TokenizerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_rpc, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(tokenizer_rpc, "BLOCKED_SECONDS", 0.1)
    with pytest.raises(NoWorker, match="no worker has answered"):
        asker.ask(TokenizerOperation.DETOKENIZE, {"tokens": []})


def test_a_question_that_nobody_waits_for_any_more_is_stale() -> None:
    asked_at = time.time() - tokenizer_rpc.KEPT_SECONDS - 1
    assert TokenizerCall(id="1", subject=TokenizerOperation.TOKENIZE, about={}, asked_at=asked_at).is_stale
