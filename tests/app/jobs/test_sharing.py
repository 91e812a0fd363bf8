"""What sharing is configured, and what a request should cost before any tokenizer has read it."""

import pytest

from app.config.jobs import JobsConfig, TokenWeights
from app.jobs import keys
from app.jobs.job import Chat, JobRequest, Kind
from app.jobs.principal import Principal
from app.jobs.sharing import DEFAULT_SHARING, Sharing, estimated_prompt_tokens
from tests.app.jobs.scene import MODEL, Scene


def test_the_scripts_read_what_the_configuration_says() -> None:
    config = JobsConfig(aging_seconds=7, token_weights=TokenWeights(prompt=3.0, cached=0.5, completion=4.0))
    assert Sharing.of(config).order_of("a model") == "llm: 7 3.0 0.5 4.0 a model"
    assert Sharing.of(JobsConfig()) == DEFAULT_SHARING


@pytest.mark.parametrize(
    ("request_of", "tokens"),
    [
        (JobRequest(kind=Kind.GENERATE, prompt="x" * 41), 11),
        (JobRequest(kind=Kind.GENERATE, prompt_tokens=(1, 2, 3)), 3),
        (JobRequest(kind=Kind.EMBED, texts=("x" * 8, (1, 2, 3))), 5),
        (JobRequest(kind=Kind.GENERATE, chat=Chat(messages=[{"role": "user", "content": "x" * 40}] * 2)), 20),
        (JobRequest(kind=Kind.GENERATE, chat=Chat(messages=[{"role": "assistant", "content": None}])), 0),
        (JobRequest(kind=Kind.GENERATE, chat=Chat(messages=[], tools=[{"name": "x" * 26}])), 10),
    ],
    ids=["text", "ids", "texts to embed", "chat", "no content", "tools"],
)
def test_a_prompt_is_estimated_by_its_characters_unless_its_tokens_are_known(
    request_of: JobRequest, tokens: int
) -> None:
    assert estimated_prompt_tokens(request_of) == tokens


def test_tenants_may_have_any_name_and_no_two_models_share_their_jobs(scene: Scene) -> None:
    assert keys.queue("a:b", "c") != keys.queue("a", "b:c")
    names = ["lab: 50 %", "a:b", "100%3A", "", "ümläut"]
    for name in names:
        scene.store.admit(scene.request(), Principal(owner="me", tenant=name))
        assert scene.raw.zcard(keys.queue(name, MODEL)) == 1
    claims = [scene.store.claim("worker-1") for _ in names]
    assert sorted(claim.tenant for claim in claims if claim) == sorted(names)
