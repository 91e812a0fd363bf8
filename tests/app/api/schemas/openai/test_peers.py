"""What clients of other servers send beside OpenAI's names."""

from typing import Any

import pytest
from marshmallow import ValidationError

from app.api.schemas.openai.chat import ChatBody, ChatSchema
from app.api.schemas.openai.completions import CompletionSchema
from app.api.schemas.openai.embeddings import EmbeddingSchema
from app.api.schemas.openai.peers import IGNORED
from app.api.schemas.openai.responses import ResponseSchema
from app.api.schemas.request_schema import RequestSchema, Unread

MESSAGES = [{"role": "user", "content": "x"}]
SCHEMA = ChatSchema()


def chat(**more: Any) -> ChatBody:
    body: ChatBody = SCHEMA.load({"messages": MESSAGES, **more})
    return body


def messages(**more: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        chat(**more)
    return caught.value.messages


@pytest.mark.parametrize("value", [True, 1, "x", {"a": 1}, [1]])
def test_names_that_mean_nothing_here_are_accepted_with_any_value_by_every_endpoint(value: Any) -> None:
    sent = dict.fromkeys(IGNORED, value)
    assert chat(**sent) == chat()
    assert CompletionSchema().load(sent) == CompletionSchema().load({})
    assert ResponseSchema().load({"input": "x", **sent}).params == chat().params
    assert EmbeddingSchema().load({"input": "x", **sent}) == EmbeddingSchema().load({"input": "x"})


@pytest.mark.parametrize(
    ("name", "neutral", "other"),
    [
        ("skip_special_tokens", True, False),
        ("use_beam_search", False, True),
        ("length_penalty", 1.0, 1.1),
        ("dry_multiplier", 0, 0.8),
        ("xtc_probability", 0.0, 0.1),
        ("bad_words", [], ["x"]),
        ("return_token_ids", False, True),
        ("echo", False, True),
        ("best_of", 1, 2),
        ("min_keep", 0, False),
        ("include_reasoning", True, False),
        ("truncate_prompt_tokens", None, 5),
        ("n_probs", 0, 3),
        ("samplers", [], ["top_k"]),
        ("t_max_predict_ms", -1, 50),
        ("stop_regex", None, "a+"),
        ("documents", [], [{"text": "x"}]),
        ("chat_template", None, "{{ messages }}"),
        ("negative_prompt", "", "x"),
        ("vllm_xargs", {}, {"a": 1}),
    ],
)
def test_a_parameter_that_could_change_the_output_is_accepted_only_where_it_does_not(
    name: str, neutral: Any, other: Any
) -> None:
    assert chat(**{name: neutral}) == chat()
    assert messages(**{name: other}) == {name: [f"{name} is not supported: leave it out."]}


@pytest.mark.parametrize(
    ("sent", "variables"),
    [
        ({"think": False}, {"enable_thinking": False, "thinking": False}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"enable_thinking": True}, {"enable_thinking": True, "thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False, "thinking": False}),
        (
            {"reasoning": {"enabled": True, "effort": "low"}},
            {"enable_thinking": True, "thinking": True, "reasoning_effort": "low"},
        ),
        ({"reasoning": {"effort": "low", "exclude": False, "max_tokens": None}}, {"reasoning_effort": "low"}),
        ({"think": True, "chat_template_kwargs": {"thinking": 1}}, {"enable_thinking": True, "thinking": 1}),
        ({"think": "high", "reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ],
)
def test_thinking_is_set_by_the_names_of_other_servers(sent: dict[str, Any], variables: dict[str, Any]) -> None:
    assert chat(**sent).variables == variables


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1, ()),
        ("very", ()),
        ({"type": "sometimes"}, ("type",)),
        ({"enabled": 1}, ("enabled",)),
        ({"budget_tokens": 5}, ("budget_tokens",)),
        ({"exclude": True}, ("exclude",)),
    ],
)
def test_thinking_that_cannot_be_set_is_refused(value: Any, path: tuple[str, ...]) -> None:
    found = messages(think=value)["think"]
    assert isinstance(found, list) if not path else list(found) == list(path)


def test_options_of_ollama_are_read_where_the_body_has_none() -> None:
    options = {"num_predict": 5, "temperature": 0.5, "num_ctx": 4096, "seed": -1}
    assert chat(options=options).params == chat(max_tokens=5, temperature=0.5).params
    assert chat(options=options, max_completion_tokens=6, temp=1).params == chat(max_tokens=6, temperature=1).params
    assert messages(options={"temperature": "hot"}) == {"options": {"temperature": ["Must be a number."]}}


def test_the_seed_has_a_name_of_mistrals() -> None:
    assert chat(random_seed=5).params["seed"] == 5


def test_a_completion_may_ask_for_the_special_tokens_that_it_gets_anyway() -> None:
    assert CompletionSchema().load({"add_special_tokens": True}) == CompletionSchema().load({})
    with pytest.raises(ValidationError):
        CompletionSchema().load({"add_special_tokens": False})


@pytest.mark.parametrize(
    ("schema", "name", "place"),
    [
        (ChatSchema(), "prompt", "/v1/completions"),
        (ChatSchema(), "instructions", "/v1/responses; here it is a message of the role system"),
        (ChatSchema(), "previous_response_id", "/v1/responses"),
        (ChatSchema(), "text", "/v1/responses"),
        (ChatSchema(), "include", "/v1/responses"),
        (CompletionSchema(), "instructions", "/v1/responses"),
        (CompletionSchema(), "tool_choice", "/v1/chat/completions"),
        (ResponseSchema(), "n", "/v1/chat/completions and /v1/completions"),
        (CompletionSchema(), "messages", "/v1/chat/completions"),
        (ResponseSchema(), "response_format", "/v1/chat/completions; here it is text.format"),
        (EmbeddingSchema(), "prompt", "/v1/completions; here it is input"),
    ],
)
def test_a_name_of_another_endpoint_is_told_where_it_belongs(schema: RequestSchema, name: str, place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        schema.load({name: "x"})
    assert isinstance(caught.value.messages, dict)
    assert caught.value.messages[name] == [f"Unknown parameter. It belongs to {place}."]


@pytest.mark.parametrize("schema", [ChatSchema(), CompletionSchema(), ResponseSchema(), EmbeddingSchema()])
def test_no_hint_proposes_a_name_that_is_refused_or_not_read(schema: RequestSchema) -> None:
    unread = [name for name, field in schema.load_fields.items() if isinstance(field, Unread)]
    assert len(unread) > 30
    assert {schema.nearest(f"{name[:-1]}{name[-1] * 2}") for name in unread} & set(unread) == set()


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (ChatSchema(), "thinking_budget"),
        (ChatSchema(), "max_prompt_tokens"),
        (ResponseSchema(), "max_prompt_tokens"),
        (ChatSchema(), "tokens"),
        (CompletionSchema(), "sampler_seq"),
        (ChatSchema(), "template"),
    ],
)
def test_a_name_without_a_twin_gets_the_list_of_known_ones(schema: RequestSchema, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        schema.load({name: "x"})
    assert isinstance(caught.value.messages, dict)
    assert caught.value.messages[name][0].startswith("Unknown parameter. Known parameters: ")


@pytest.mark.parametrize("schema", [ChatSchema(), CompletionSchema(), ResponseSchema()])
def test_guided_decoding_is_told_its_present_name(schema: RequestSchema) -> None:
    assert schema.nearest("guided_decoding") == "structured_outputs"


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("truncate_prompt_tokens", None, 5),
        ("truncate", False, True),
        ("embd_normalize", 2, -1),
        ("normalize", True, False),
        ("input_type", None, "query"),
        ("add_special_tokens", True, False),
    ],
)
def test_a_request_for_vectors_may_have_what_changes_nothing(name: str, value: Any, other: Any) -> None:
    schema = EmbeddingSchema()
    assert schema.load({"input": "x", name: value}) == schema.load({"input": "x"})
    with pytest.raises(ValidationError, match="is not supported: leave it out"):
        schema.load({"input": "x", name: other})


@pytest.mark.parametrize("options", [{}, {"num_ctx": 4096}])
def test_ollamas_options_mean_nothing_for_vectors(options: dict[str, Any]) -> None:
    assert EmbeddingSchema().load({"input": "x", "options": options}) == EmbeddingSchema().load({"input": "x"})
