import time
from typing import Any

from app.api.schemas.openai.call_ids import join_calls


def calls(*ids_and_names: tuple[str | None, str]) -> dict[str, Any]:
    made = [{"id": call_id, "function": {"name": name}} for call_id, name in ids_and_names]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": ""}


def joined(*messages: dict[str, Any]) -> list[str]:
    """Return the ids of the calls that the results got."""
    join_calls(list(messages))
    return [message["tool_call_id"] for message in messages if message["role"] == "tool"]


def test_a_result_belongs_to_the_first_open_call_of_its_function_or_of_any() -> None:
    made = calls(("a", "f"), ("b", "g"), ("c", "g"), ("d", "f"))
    assert joined(made, result(name="g"), result(), result(name="f"), result(name="unknown")) == ["b", "a", "d", "c"]


def test_a_call_whose_result_has_its_id_is_not_open() -> None:
    assert joined(calls(("a", "f"), ("b", "f")), result("a"), result()) == ["a", "b"]


def test_a_call_of_a_later_turn_with_the_same_id_is_open_again() -> None:
    assert joined(calls(("a", "f")), result("a"), calls(("a", "g")), result(name="g"), result()) == [
        "a",
        "a",
        "call00000",
    ]


def test_ids_are_nine_letters_and_digits_and_differ() -> None:
    messages = [calls((None, "f"), ("x", "f")), calls(("", "f"))]
    join_calls(messages)
    ids = [call["id"] for message in messages for call in message["tool_calls"]]
    assert ids == ["call00000", "x", "call00002"]


def test_a_result_without_a_call_gets_an_id() -> None:
    assert joined(result(), result("x"), result(name="f")) == ["call00000", "x", "call00000"]


def test_many_calls_without_ids_are_joined_in_linear_time() -> None:
    def seconds(count: int) -> float:
        messages = [calls(*[(None, "f")] * count), *(result(name=name) for name in ("g", "f") * (count // 2))]
        begun = time.process_time()
        join_calls(messages)
        return time.process_time() - begun

    assert seconds(32_000) < 12 * max(seconds(8_000), 0.002), "quadratic would be 16 times"
