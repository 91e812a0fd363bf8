"""The answers that clients get when Redis fails."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient

from app.config.settings import Config
from app.jobs import keys
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import working
from tests.grumbling_redis import grumbling_redis
from tests.valkey import Valkey, running_valkey


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path) as server:
        yield server


@pytest.fixture
def own_client(make_app: MakeApp, config: Config, own_valkey: Valkey) -> FlaskClient:
    return make_app(replace(config, redis_url=own_valkey.url)).test_client()


def test_a_redis_out_of_memory_is_reported_and_jobs_are_accepted_again_when_there_is_room(
    own_client: FlaskClient, own_valkey: Valkey
) -> None:
    with working(own_valkey.url, MODEL) as worker:
        path = own_client.post("/agenerate", json={"prompt": "secret"}).get_json()["urls"]["self"]
        assert own_client.get(f"{path}?wait=5").get_json()["status"] == "succeeded"
        with redis.Redis.from_url(own_valkey.url) as raw:
            raw.config_set("maxmemory", "1")
            for route, body in (("/generate", {"prompt": "p"}), ("/agenerate", {"prompt": "p", "stream": True})):
                refused = own_client.post(route, json=body)
                assert (refused.status_code, refused.get_json()["code"]) == (503, "store_unavailable")
                assert int(refused.headers["Retry-After"]) > 0
                for cure in ("out of memory", "delete finished jobs", "lower jobs.ttl", "raise maxmemory"):
                    assert cure in refused.get_json()["detail"]
            assert len(own_client.get("/jobs").get_json()["data"]) == 1, "what is refused leaves nothing behind"
            assert own_client.get(path).get_json()["output"]["text"] == "Hello world"
            assert own_client.delete(path).status_code == 204, "the advice of the error works"
            assert raw.exists(keys.job(path.split("/")[-1])) == 0
            raw.config_set("maxmemory", "0")
        assert own_client.post("/generate", json={"prompt": "p"}).get_json() == "Hello world"
        assert len(worker.turns) == 2


def test_a_redis_that_is_a_replica_is_reported(own_client: FlaskClient, own_valkey: Valkey) -> None:
    with redis.Redis.from_url(own_valkey.url) as raw:
        raw.set(keys.alive(MODEL), "any-worker")
        raw.replicaof("127.0.0.1", "1")
    refused = own_client.post("/generate", json={"prompt": "p"})
    assert refused.status_code == 503
    assert "is a replica and accepts no writes" in refused.get_json()["detail"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("LOADING Valkey is loading the dataset in memory", "has just started and is still loading its data"),
        ("MASTERDOWN Link with MASTER 10.1.2.3 is down", "is a replica that has lost its primary"),
        ("NOAUTH Authentication required.", "check the user and the password in redis_url"),
        ("NOPERM User prompt-reader has no permissions", "check the user and the password in redis_url"),
        ("MISCONF Errors writing to the AOF file on 10.1.2.3", "cannot write to its disk"),
        ("ERR max number of clients reached", "answers with an error"),
    ],
)
def test_a_redis_that_answers_with_an_error_is_not_sentence_to_be_silent(
    make_app: MakeApp, config: Config, caplog: pytest.LogCaptureFixture, error: str, sentence: str
) -> None:
    with grumbling_redis(error) as url, caplog.at_level(logging.ERROR):
        refused = make_app(replace(config, redis_url=url)).test_client().post("/generate", json={"prompt": "p"})
    assert (refused.status_code, refused.get_json()["code"]) == (503, "store_unavailable")
    assert sentence in refused.get_json()["detail"]
    assert error.split()[0] in caplog.text
    for text in (refused.text, caplog.text):
        assert "10.1.2.3" not in text and "prompt-reader" not in text and url.split("/")[2] not in text
