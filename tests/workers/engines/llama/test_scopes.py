"""Who shares computed prefixes with whom: a worker with the real model, a real Valkey."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from app.config.settings import CacheConfig, Config, JobsConfig
from app.jobs.job import JobRequest, Kind
from app.jobs.principal import Principal
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.principals import key_named
from tests.waiting import scaled
from tests.workers.engines.llama.driver import make_engine
from workers.batching.runner import BatchRunner
from workers.worker import Worker

CONFIG = Config(model_name="m", jobs=JobsConfig(ttl=60))
PROMPT = "You are the clerk of a small archive. The secret of this house is the number 4711. " * 3
ANN, ANNS_COLLEAGUE = (Principal(owner=owner, tenant="archive") for owner in ("key-ann", "key-bea"))
STRANGER = key_named("key-eve")


CachedTokens = Callable[..., int]


@pytest.fixture
def serving(redis_client: RedisClient, store: JobStore) -> Iterator[Callable[[Config], CachedTokens]]:
    """Begin to serve; the result runs the prompt and returns how many of its tokens were shared."""
    with contextlib.ExitStack() as resources:

        def serve(config: Config) -> CachedTokens:
            worker = Worker(config, redis_client, store, "worker-1")
            worker.serve(BatchRunner(make_engine(), config.worker, worker))
            resources.callback(worker.close)

            def cached_tokens(principal: Principal, salt: str = "") -> int:
                request = JobRequest(kind=Kind.GENERATE, prompt=PROMPT, params={"max_tokens": 1}, cache_salt=salt)
                job_id = store.admit(request, principal).id
                worker.claim_next()
                assert worker.drain(scaled(20))
                usage = store.read(job_id).usage
                assert usage is not None and usage.prompt_tokens > 60
                return usage.cached_tokens

            return cached_tokens

        yield serve


def test_a_prefix_is_shared_inside_a_tenant_and_a_salt(serving: Callable[[Config], CachedTokens]) -> None:
    cached_tokens = serving(CONFIG)
    assert [cached_tokens(one) for one in (ANN, STRANGER)] == [0, 0]
    assert [cached_tokens(one) > 60 for one in (ANNS_COLLEAGUE, STRANGER)] == [True, True]
    assert [cached_tokens(one, "a") for one in (ANN, STRANGER)] == [0, 0]
    assert [cached_tokens(one, "a") > 60 for one in (ANNS_COLLEAGUE, STRANGER)] == [True, True]
    assert cached_tokens(ANN, "b") == 0


def test_a_salt_closes_what_all_keys_share(serving: Callable[[Config], CachedTokens]) -> None:
    cached_tokens = serving(replace(CONFIG, cache=CacheConfig(across_keys=True)))
    assert cached_tokens(ANN) == 0 < cached_tokens(STRANGER)
    assert cached_tokens(STRANGER, "a") == 0 < cached_tokens(ANN, "a")
