"""How a request becomes a prompt, and which requests are refused before they run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.config.settings import Config
from app.errors import InvalidGrammar, InvalidRequest, PromptTooLong, UnsupportedParameter
from app.jobs.job import Chat, JobRequest, Kind
from tests.workers.engines.llama.driver import request
from tests.workers.models.ggml.old_files import write_old_file
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.llama.prompts import LlamaPromptMaker
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.chat_template import ChatTemplate
from workers.models.source import locate_model


def test_the_defaults_of_generate_are_those_of_the_original(engine: LlamaEngine) -> None:
    sampling = engine.prepare(request("Hi")).sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (128, 0.8, 0.95, 40)
    assert (sampling.repeat_penalty, sampling.repeat_last_n, sampling.min_p) == (1.1, 64, 0.0)


@pytest.mark.parametrize(
    ("params", "is_deterministic"),
    [({}, False), ({"temperature": 0}, True), ({"seed": 5}, True), ({"seed": -1}, False), ({"top_k": 1}, False)],
)
def test_greedy_and_seeded_requests_are_deterministic(
    engine: LlamaEngine, params: dict[str, Any], is_deterministic: bool
) -> None:
    assert engine.prepare(request("Hi", **params)).is_deterministic is is_deterministic


def test_special_tokens_in_the_prompt_are_recognised(engine: LlamaEngine, vocabulary: LlamaVocabulary) -> None:
    tokens = engine.prepare(request("<|im_start|>user")).tokens
    assert vocabulary.text(tokens[0]) == "<|im_start|>" and vocabulary.piece(tokens[0]) == b""


def test_a_prompt_without_tokens_begins_with_the_models_first_token(engine: LlamaEngine) -> None:
    assert engine.prepare(request("")).tokens == [1]


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(engine: LlamaEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"length is 512 tokens.* 601 tokens \(600 in prompt, 1 in") as caught:
        engine.prepare(request(" a" * 600))
    assert list(caught.value.errors) == ["prompt"]
    engine.prepare(request(" a" * 511))


HELLO = Chat(messages=[{"role": "user", "content": "Hello"}])


def test_a_chat_is_rendered_with_the_models_own_template(engine: LlamaEngine) -> None:
    prompt = engine.prepare(JobRequest(kind=Kind.GENERATE, chat=HELLO, params={"echo": True}))
    assert prompt.echo_text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert "SmolLM" in prompt.echo_text  # its system message
    assert prompt.tokens == engine.tokenize(prompt.echo_text, add_special=True)
    assert prompt.tokens == engine.tokenize(HELLO, add_special=True)


THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}"


def test_a_chat_whose_template_begins_the_thoughts_puts_the_tag_before_the_output(
    vocabulary: LlamaVocabulary,
) -> None:
    """The API finds thoughts by their tag at the beginning of the output."""
    maker = LlamaPromptMaker(vocabulary, ChatTemplate(THINKS), {}, 512)

    def echo(**params: Any) -> str:
        return maker.prepare(JobRequest(kind=Kind.GENERATE, chat=HELLO, params=params)).echo_text

    assert echo() == "<think>\n"
    assert echo(echo=True) == "Hello<think>\n"
    assert echo(json_schema={"type": "object"}) == "", "the object is no thought"
    assert maker.prepare(request("Hello<think>\n")).echo_text == "", "no chat"


@pytest.fixture(scope="module")
def plain_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaVocabulary]:
    """The vocabulary of a model that has no tokens of ChatML, and no template."""
    path = tmp_path_factory.mktemp("plain") / "ggml-koala.bin"
    write_old_file(path)
    config = Config(model_name="m", models_dir=path.parent, setup_params={"path": str(path), "convert": True})
    model = Model(locate_model(config, lambda *_: None, single_file=True), LlamaModelParams(), lambda *_: None)
    yield model.vocabulary
    model.close()


def test_chatml_ends_at_its_end_also_where_that_is_no_token(plain_vocabulary: LlamaVocabulary) -> None:
    template = ChatTemplate(None)
    maker = LlamaPromptMaker(plain_vocabulary, template, {}, 512)

    def stop(**params: Any) -> tuple[str, ...]:
        sampling = maker.prepare(JobRequest(kind=Kind.GENERATE, chat=HELLO, params=params)).sampling
        assert sampling.stop_token_ids == ()
        return sampling.stop

    assert stop() == ("<|im_end|>",)
    assert stop(stop=["."]) == (".", "<|im_end|>")
    assert stop(ignore_eos=True) == ()
    assert maker.prepare(request("Hello")).sampling.stop == (), "no chat"
    template.close()


def test_chatml_ends_at_its_token_where_there_is_one(vocabulary: LlamaVocabulary) -> None:
    template = ChatTemplate(None)
    sampling = LlamaPromptMaker(vocabulary, template, {}, 512).prepare(
        JobRequest(kind=Kind.GENERATE, chat=HELLO, params={"stop_token_ids": [5]})
    )
    ids = sampling.sampling.stop_token_ids
    assert (ids[0], vocabulary.text(ids[1]), sampling.sampling.stop) == (5, "<|im_end|>", ())
    template.close()


def test_a_chat_that_is_too_long_names_the_messages(engine: LlamaEngine) -> None:
    chat = Chat(messages=[{"role": "user", "content": " a" * 600}])
    with pytest.raises(PromptTooLong) as caught:
        engine.prepare(JobRequest(kind=Kind.GENERATE, chat=chat))
    assert list(caught.value.errors) == ["messages"]


def test_token_ids_are_the_prompt_as_they_are(engine: LlamaEngine) -> None:
    tokens = tuple(engine.tokenize("The sun", add_special=True))
    prompt = engine.prepare(JobRequest(kind=Kind.GENERATE, prompt_tokens=tokens, params={"echo": True}))
    assert (prompt.tokens, prompt.echo_text) == (list(tokens), "The sun")


@pytest.mark.parametrize("token", [-1, 49152])
def test_invalid_token_ids_are_refused(engine: LlamaEngine, token: int) -> None:
    with pytest.raises(InvalidRequest, match="no token") as caught:
        engine.prepare(JobRequest(kind=Kind.GENERATE, prompt_tokens=(1, token)))
    assert list(caught.value.errors) == ["prompt"]


def test_tokens_become_text_with_control_tokens_by_name(engine: LlamaEngine) -> None:
    text = "<|im_start|>user\nGrüße 日本"
    assert engine.detokenize(engine.tokenize(text, add_special=False)) == text


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_tokens": 10_000}, 512 - 3),
        ({"max_length": 10}, 7),
        ({"max_length": 300}, 297),
        ({"max_length": 300, "max_tokens": 5}, 5),
        ({"max_length": 6, "max_tokens": 5}, 3),
    ],
)
def test_max_tokens_is_lowered_to_what_can_be_generated(
    engine: LlamaEngine, params: dict[str, Any], expected: int
) -> None:
    prompt = engine.prepare(request("a b c", **params))
    assert len(prompt.tokens) == 3 and prompt.sampling.max_tokens == expected


@pytest.mark.parametrize(
    ("params", "error", "field"),
    [
        ({"max_length": 2}, InvalidRequest, "params.max_length"),
        ({"logit_bias": {"49152": 1.0}}, InvalidRequest, "params.logit_bias"),
        ({"logit_bias": {"-1": 1.0}}, InvalidRequest, "params.logit_bias"),
        ({"stop_token_ids": [2, 10_000_000]}, InvalidRequest, "params.stop_token_ids"),
        ({"suffix": "the end"}, UnsupportedParameter, "params.suffix"),
        ({"num_beams": 4}, UnsupportedParameter, "params.num_beams"),
        ({"grammar": "root ::= ("}, InvalidGrammar, "params.grammar"),
        ({"json_schema": {"type": "colour"}}, InvalidGrammar, "params.json_schema"),
    ],
)
def test_a_request_that_cannot_run_is_refused_by_the_name_of_its_field(
    engine: LlamaEngine, params: dict[str, Any], error: type[InvalidRequest], field: str
) -> None:
    with pytest.raises(error) as caught:
        engine.prepare(request("a b c", **params))
    assert list(caught.value.errors) == [field] and caught.value.status == 422


def test_many_threads_prepare_at_once(engine: LlamaEngine) -> None:
    texts = [f"{'word ' * (number % 50)}{number}" for number in range(200)]
    expected = [engine.prepare(request(text)).tokens for text in texts]
    with ThreadPoolExecutor(16) as pool:
        prompts = list(pool.map(lambda text: engine.prepare(request(text, json_schema={"type": "integer"})), texts))
    assert [prompt.tokens for prompt in prompts] == expected
