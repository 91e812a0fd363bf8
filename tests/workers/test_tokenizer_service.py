"""Questions beside jobs, asked and answered through a real Valkey."""

import threading
import time
from collections.abc import Iterator

import pytest

from app.config.settings import Config
from app.errors import EngineFailed, InvalidRequest, NoWorker
from app.jobs import keys, tokenizer_rpc
from app.jobs.redis_client import RedisClient, connect
from app.jobs.tokenizer_rpc import Question, Questions, Subject
from tests.engines.instant import Instant
from workers.tokenizer_service import Answers

ENGINE = Instant(Config(model_name="m"), lambda *_: None)


@pytest.fixture
def answers(redis_client: RedisClient) -> Iterator[Answers]:
    answers = Answers(redis_client, "m", ENGINE)
    answers.start()
    yield answers
    answers.stop()


@pytest.fixture
def asker(redis_url: str, redis_client: RedisClient) -> Questions:
    redis_client.set(keys.alive("m"), "somebody")
    return Questions(connect(redis_url), "m")


def test_a_question_is_answered_and_nothing_is_left_of_it(
    asker: Questions, answers: Answers, redis_client: RedisClient
) -> None:
    assert asker.ask(Subject.TOKENIZE, {"text": "ab", "add_special": True}) == [0, 97, 98]
    assert asker.ask(Subject.DETOKENIZE, {"tokens": [97, 98]}) == "ab"
    assert redis_client.execute_command("KEYS", "llm:[qa]*") == [keys.alive("m")]


def test_many_ask_at_once_and_each_gets_its_own_answer(asker: Questions, answers: Answers) -> None:
    found: dict[int, object] = {}

    def ask(number: int) -> None:
        found[number] = asker.ask(Subject.DETOKENIZE, {"tokens": [number]})

    threads = [threading.Thread(target=ask, args=[97 + number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {97 + number: chr(97 + number) for number in range(20)}


def test_what_the_worker_finds_wrong_is_raised_where_it_was_asked(asker: Questions, answers: Answers) -> None:
    with pytest.raises(InvalidRequest, match="no template") as caught:
        asker.ask(Subject.TOKENIZE, {"chat": {"messages": []}, "add_special": True})
    assert list(caught.value.errors) == ["messages"]


def test_a_defect_of_the_engine_fails_one_question_and_tells_nothing_of_it(asker: Questions, answers: Answers) -> None:
    with pytest.raises(EngineFailed, match="the worker's log says more"):
        asker.ask(Subject.DETOKENIZE, {"tokens": ["secret"]})
    assert asker.ask(Subject.DETOKENIZE, {"tokens": [97]}) == "a"


def test_without_a_worker_nobody_waits(redis_url: str) -> None:
    with pytest.raises(NoWorker, match="no worker serves 'm'"):
        Questions(connect(redis_url), "m").ask(Subject.DETOKENIZE, {"tokens": []})


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(
    asker: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_rpc, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(tokenizer_rpc, "BLOCKED_SECONDS", 0.1)
    with pytest.raises(NoWorker, match="no worker has answered"):
        asker.ask(Subject.DETOKENIZE, {"tokens": []})


def test_a_question_that_nobody_waits_for_any_more_is_stale() -> None:
    asked_at = time.time() - tokenizer_rpc.KEPT_SECONDS - 1
    assert Question(id="1", subject=Subject.TOKENIZE, about={}, asked_at=asked_at).is_stale
