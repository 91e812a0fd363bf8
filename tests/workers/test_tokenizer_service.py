"""The tokenizer client and the tokenizer service, over a real Valkey."""

import threading
import time
from collections.abc import Iterator

import pytest

from app.config.settings import Config
from app.errors import EngineFailed, InvalidRequest, NoWorker
from app.jobs import keys, tokenizer_rpc
from app.jobs.job import Chat
from app.jobs.redis_client import RedisClient, connect
from app.jobs.tokenizer_rpc import TokenizerCall, TokenizerClient, TokenizerOperation
from tests.engines.instant import Instant
from tests.waiting import scaled
from workers.tokenizer_service import TokenizerService

ENGINE = Instant(Config(model_name="m"), lambda *_: None)


@pytest.fixture
def service(redis_client: RedisClient) -> Iterator[TokenizerService]:
    service = TokenizerService(redis_client, "m", ENGINE)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(redis_url: str, redis_client: RedisClient) -> TokenizerClient:
    redis_client.set(keys.alive("m"), "worker-1")
    return TokenizerClient(connect(redis_url), "m")


def test_a_call_is_answered_and_leaves_no_key_behind(
    client: TokenizerClient, service: TokenizerService, redis_client: RedisClient
) -> None:
    assert client.call(TokenizerOperation.TOKENIZE, {"text": "ab", "add_special": True}) == [0, 97, 98]
    assert client.call(TokenizerOperation.DETOKENIZE, {"tokens": [97, 98]}) == "ab"
    assert redis_client.execute_command("KEYS", "llm:[qa]*") == [keys.alive("m")]


def test_concurrent_calls_each_get_their_own_answer(client: TokenizerClient, service: TokenizerService) -> None:
    results: dict[int, object] = {}

    def ask(number: int) -> None:
        results[number] = client.call(TokenizerOperation.DETOKENIZE, {"tokens": [number]})

    threads = [threading.Thread(target=ask, args=[97 + number]) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(10))
    assert results == {97 + number: chr(97 + number) for number in range(20)}


class Slow(Instant):
    """Tokenizes "slow" when it is allowed to."""

    def __init__(self) -> None:
        super().__init__(Config(model_name="m"), lambda *_: None)
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        if text == "slow":
            self.is_asked.set()
            assert self.may_go_on.wait(scaled(30))
        return super().tokenize(text, add_special=add_special)


def test_a_call_that_takes_long_does_not_delay_the_next(client: TokenizerClient, redis_client: RedisClient) -> None:
    engine, results = Slow(), list[object]()
    service = TokenizerService(redis_client, "m", engine)
    service.start()

    def ask_for_slow() -> None:
        results.append(client.call(TokenizerOperation.TOKENIZE, {"text": "slow", "add_special": False}))

    asking = threading.Thread(target=ask_for_slow)
    asking.start()
    assert engine.is_asked.wait(scaled(10))
    assert client.call(TokenizerOperation.TOKENIZE, {"text": "ab", "add_special": False}) == [97, 98]
    assert results == []
    engine.may_go_on.set()
    asking.join(scaled(10))
    assert len(results) == 1
    service.stop()


def test_an_error_of_the_worker_is_raised_in_the_client(client: TokenizerClient, service: TokenizerService) -> None:
    with pytest.raises(InvalidRequest, match="no template") as caught:
        client.call(TokenizerOperation.TOKENIZE, {"chat": {"messages": []}, "add_special": True})
    assert list(caught.value.errors) == ["messages"]


def test_a_defect_of_the_engine_fails_one_call_and_exposes_nothing_of_it(
    client: TokenizerClient, service: TokenizerService
) -> None:
    with pytest.raises(EngineFailed, match="the worker's log says more"):
        client.call(TokenizerOperation.DETOKENIZE, {"tokens": ["secret"]})
    assert client.call(TokenizerOperation.DETOKENIZE, {"tokens": [97]}) == "a"


def test_without_a_worker_a_call_fails_at_once(redis_url: str) -> None:
    with pytest.raises(NoWorker, match="no worker serves 'm'"):
        TokenizerClient(connect(redis_url), "m").call(TokenizerOperation.DETOKENIZE, {"tokens": []})


def test_a_call_to_a_worker_that_does_not_answer_times_out(
    client: TokenizerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_rpc, "REPLY_SECONDS", 0.1)
    monkeypatch.setattr(tokenizer_rpc, "BLOCKED_SECONDS", 0.1)
    with pytest.raises(NoWorker, match="no worker has answered"):
        client.call(TokenizerOperation.DETOKENIZE, {"tokens": []})


def test_a_call_whose_client_has_stopped_waiting_is_stale() -> None:
    asked_at = time.time() - tokenizer_rpc.KEPT_SECONDS - 1
    assert TokenizerCall(id="1", operation=TokenizerOperation.TOKENIZE, arguments={}, called_at=asked_at).is_stale
