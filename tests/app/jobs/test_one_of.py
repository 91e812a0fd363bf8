import time
from typing import Any

import pytest

from app.jobs.one_of import OneOfs
from tests.waiting import scaled

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def tagged(value: Any, *, is_required: bool = True) -> dict[str, Any]:
    required = {"required": ["kind"]} if is_required else {}
    return {"type": "object", "properties": {"kind": value}, **required}


@pytest.mark.parametrize(
    ("schemas", "expected"),
    [
        ([], True),
        ([TEXT], True),
        ([TEXT, NUMBER], True),
        ([TEXT, {"type": ["string", "null"]}], False),
        ([{"type": "integer"}, NUMBER], False),
        ([{"const": 1}, {"const": "1"}, {"enum": [2, 3]}], True),
        ([{"const": 1}, {"enum": [1, 2]}], False),
        ([TEXT, {}], False),
        ([TEXT, True], False),
        ([TEXT, False], True),
        ([tagged({"const": "a"}), tagged({"const": "b"})], True),
        ([tagged({"enum": ["a", "b"]}), tagged({"const": "b"})], False),
        ([tagged({"const": "a"}), tagged({"const": "b"}, is_required=False)], False),
        ([tagged(TEXT), tagged(NUMBER)], True),
        ([tagged({"$ref": "#/$defs/a"}), tagged({"const": "b"})], True),
        ([{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], True),
        ([{"$ref": "#/$defs/nowhere"}, TEXT], False),
        ([{"const": index} for index in range(100)], True),
        ([{"const": index} for index in range(1000)], False),
    ],
)
def test_schemas_are_disjoint_where_types_values_or_a_required_tag_differ(schemas: list[Any], expected: bool) -> None:
    root = {"$defs": {"a": {"const": "a"}, "b": {"const": "b"}}}
    assert OneOfs(root).are_disjoint(schemas) is expected


def test_what_takes_too_long_to_find_out_is_unknown_and_takes_no_longer() -> None:
    tags = {f"t{number}": {"type": "string"} for number in range(1000)}
    definitions = {
        name: {"type": "object", "properties": {**tags, "z": {"const": name}}, "required": [*tags, "z"]}
        for name in ("a", "b")
    }
    one_ofs = OneOfs({"$defs": definitions})
    references = [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]
    started = time.process_time()
    answers = [one_ofs.are_disjoint(references) for _ in range(1000)]
    assert answers[0] and not answers[-1]
    assert time.process_time() - started < scaled(0.5)
