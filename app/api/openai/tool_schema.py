"""The JSON Schema that makes a model call functions: a list of calls, or the arguments of the one that is named."""

from collections.abc import Sequence
from typing import Any

from app.api.openai.closed_schema import closed
from app.api.schemas.openai.tools import Tools

Schema = dict[str, Any]

ANY_ARGUMENTS: Schema = {"type": "object"}
MAX_CALLS = 16  # of one forced list: without a limit a small model writes calls until its tokens run out


def forced_schema(tools: Tools, answer_format: Schema | None) -> Schema | None:
    """Return the schema that the text must follow; None: it is free."""
    answer: Schema | None = closed(answer_format)
    if tools.choice.named is not None:
        return schema_of_arguments(tools.tools[0])
    if tools.choice.mode == "required":
        return schema_of_calls(tools.tools, parallel=tools.parallel)
    if answer is not None and tools.tools:
        return schema_of_calls_or(answer, tools.tools, parallel=tools.parallel)
    return answer


def wanted_calls(tools: Tools, answer_format: Schema | None) -> dict[str, Any]:
    """Return the same for an engine that forwards it (`Chat.calls`)."""
    if not tools.tools:
        return {}
    named = tools.choice.named
    choice = tools.choice.mode if named is None else {"type": "function", "function": {"name": named}}
    return {"tool_choice": choice, "parallel_tool_calls": tools.parallel, "schema": closed(answer_format)}


def schema_of_arguments(tool: dict[str, Any]) -> Schema:
    """Return the schema of an object, also where the tool's own one does not say that: other values are no call."""
    return {**(closed(tool["function"].get("parameters")) or {}), **ANY_ARGUMENTS}


def schema_of_calls(tools: Sequence[dict[str, Any]], *, parallel: bool) -> Schema:
    """Return the schema of a list of calls, `[{"name": ..., "arguments": {...}}]`: exactly one, or with
    `parallel` up to `MAX_CALLS`.
    """
    definitions = {
        f"tool{index}": _moved(schema_of_arguments(tool), f"tool{index}") for index, tool in enumerate(tools)
    }
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": {"$ref": f"#/$defs/tool{index}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for index, tool in enumerate(tools)
    ]
    return {
        "type": "array",
        "items": {"anyOf": calls},
        "minItems": 1,
        "maxItems": MAX_CALLS if parallel else 1,
        "$defs": definitions,
    }


def schema_of_calls_or(answer: Schema, tools: Sequence[dict[str, Any]], *, parallel: bool) -> Schema:
    """Return the schema of calls, or of an output in its format."""
    calls = schema_of_calls(tools, parallel=parallel)
    definitions = calls.pop("$defs") | {"answer": _moved(answer, "answer")}
    return {"anyOf": [calls, {"$ref": "#/$defs/answer"}], "$defs": definitions}


def _moved(schema: Any, name: str) -> Any:
    """Return a schema for `$defs`: its references to its own root (`#/...`) point there."""
    if isinstance(schema, list):
        return [_moved(item, name) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, name) for key, value in schema.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"#/$defs/{name}{reference[1:]}"
    return moved
