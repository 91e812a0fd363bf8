"""The application over a real Valkey, and a scripted worker."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.application import create_app
from app.api.request_context import services_of
from app.config.server import ServerConfig
from app.config.settings import AuthConfig, Config, JobsConfig
from tests.app.api.scripted_worker import ScriptedWorker, working
from tests.valkey import Valkey

MODEL = "scripted"
KEYS = ("first-key", "second-key")


@pytest.fixture(scope="session")
def config(valkey: Valkey) -> Config:
    return Config(
        model_name=MODEL,
        redis_url=valkey.url,
        jobs=JobsConfig(timeout=20, max_queued=50),
        server=ServerConfig(max_body_bytes=100_000),
    )


MakeApp = Callable[[Config], Flask]


@pytest.fixture(scope="session")
def make_app() -> Iterator[MakeApp]:
    """A function that makes applications, whose subscriptions are closed at the end."""
    made: list[Flask] = []

    def make(config: Config) -> Flask:
        made.append(create_app(config))
        return made[-1]

    yield make
    for app in made:
        services_of(app).jobs.waiters.close()


@pytest.fixture(scope="session")
def app(make_app: MakeApp, config: Config) -> Flask:
    return make_app(config)


@pytest.fixture
def client(app: Flask, redis_url: str) -> FlaskClient:
    """A client over an empty database without a worker."""
    return app.test_client()


@pytest.fixture
def worker(redis_url: str) -> Iterator[ScriptedWorker]:
    with working(redis_url, MODEL) as worker:
        yield worker


@pytest.fixture(scope="session")
def locked_app(make_app: MakeApp, valkey: Valkey) -> Flask:
    """The application with API keys."""
    return make_app(Config(model_name=MODEL, redis_url=valkey.url, auth=AuthConfig(api_keys=KEYS)))
