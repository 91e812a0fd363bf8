import json
import time
from typing import Any

import pytest

from tests.waiting import scaled
from workers.engines.shared import grammar_trial
from workers.engines.shared.grammar_sandbox import GrammarSandbox

COSTLY: list[dict[str, Any]] = [
    {"allOf": [{"type": "integer", "multipleOf": step} for step in (9973, 9967, 9949, 9941)]},
    {"allOf": [{"type": "string", "pattern": f"^(.*a.{{{count}}})+"} for count in range(30)]},
]


@pytest.fixture(scope="module")
def sandbox() -> GrammarSandbox:
    return GrammarSandbox()


def compiles(sandbox: GrammarSandbox, schema: dict[str, Any]) -> bool:
    return sandbox.compiles_schema(json.dumps(schema), json.dumps({"grammars": [{"json_schema": schema}]}))


@pytest.mark.parametrize("schema", COSTLY, ids=["steps", "patterns"])
def test_a_schema_that_compiles_for_hours_is_found_out_within_its_limit(
    sandbox: GrammarSandbox, schema: dict[str, Any]
) -> None:
    started = time.monotonic()
    assert not compiles(sandbox, schema)
    assert time.monotonic() - started < scaled(grammar_trial.LIMITS.cpu_seconds + 4)
    assert compiles(sandbox, {"type": "string", "pattern": "^after$"})


def test_a_schema_with_many_formats_compiles(sandbox: GrammarSandbox) -> None:
    formats = ("date-time", "email", "uri", "ipv6")
    properties = {f"p{index}": {"type": "string", "format": formats[index % 4]} for index in range(200)}
    assert compiles(sandbox, {"type": "object", "properties": properties})


def test_what_is_no_grammar_is_left_to_be_reported_by_the_compiler(sandbox: GrammarSandbox) -> None:
    assert compiles(sandbox, {"type": "string", "pattern": "("})
    assert sandbox.compiles("no grammar")


def test_a_grammar_is_tried_once(sandbox: GrammarSandbox) -> None:
    schema = {"type": "string", "pattern": "^once$"}
    assert compiles(sandbox, schema)
    started = time.monotonic()
    for _ in range(1000):
        compiles(sandbox, schema)
    assert time.monotonic() - started < scaled(0.5)
