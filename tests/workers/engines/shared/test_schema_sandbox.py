import json
import time
from typing import Any

import pytest

from tests.waiting import scaled
from workers.engines.shared import schema_sandbox
from workers.engines.shared.schema_sandbox import CPU_SECONDS, compiles_safely

COSTLY: list[dict[str, Any]] = [
    {"allOf": [{"type": "integer", "multipleOf": step} for step in (9973, 9967, 9949, 9941)]},
    {"allOf": [{"type": "string", "pattern": f"^(.*a.{{{count}}})+"} for count in range(30)]},
]


def compiles(schema: dict[str, Any]) -> bool:
    return compiles_safely(json.dumps(schema), json.dumps({"grammars": [{"json_schema": schema}]}))


@pytest.mark.parametrize("schema", COSTLY, ids=["steps", "patterns"])
def test_a_schema_that_compiles_for_hours_is_found_out_within_its_limit(schema: dict[str, Any]) -> None:
    started = time.monotonic()
    assert not compiles(schema)
    assert time.monotonic() - started < scaled(CPU_SECONDS + 4)


def test_a_schema_with_many_formats_compiles() -> None:
    formats = ("date-time", "email", "uri", "ipv6")
    properties = {f"p{index}": {"type": "string", "format": formats[index % 4]} for index in range(200)}
    assert compiles({"type": "object", "properties": properties})


def test_a_machine_too_busy_for_the_trial_rejects_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_sandbox, "WAIT_SECONDS", 0.01)
    assert not compiles({"type": "string", "pattern": "^busy$"})
