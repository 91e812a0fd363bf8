"""Calls that are not written as one JSON object: Qwen3-Coder's XML, and Mistral's name before the arguments."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

Schema = Mapping[str, Any]

_FUNCTION = re.compile(r"<function=([^>\s]+)\s*>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\s*\Z)", re.DOTALL)
_PYTHONS = {"True": True, "False": False, "None": None}  # what models that write much Python say
_CALL_ID = re.compile(r"\[CALL_ID\]\w*")
_NAMED = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
_MARKS = ("[ARGS]", "[CALL_ID]", "{")


def xml_calls(text: str, parameters: Mapping[str, Schema]) -> list[dict[str, Any]]:
    """Name and arguments of each `<function=NAME><parameter=KEY>VALUE</parameter>...</function>`.

    parameters: the JSON Schema of each function's arguments, by which a value is a text, or JSON.
    """
    return [
        {"name": name, "arguments": _arguments(body, parameters.get(name, {}).get("properties", {}))}
        for name, body in _FUNCTION.findall(text)
    ]


def may_be_named(text: str, names: Collection[str]) -> bool:
    """Whether a text begins, or may go on, as `NAME[ARGS]{...}` does."""
    return any(_may_be_call_of(name, text) for name in names)


def behind_name(text: str) -> tuple[str, int] | None:
    """The name before the arguments, and where these begin; None where there are none yet."""
    found = _NAMED.match(text)
    return (found[1], found.end()) if found else None


def _may_be_call_of(name: str, text: str) -> bool:
    if len(text) <= len(name):
        return name.startswith(text)
    if not text.startswith(name):
        return False
    behind = text[len(name) :].lstrip()
    marked = _CALL_ID.match(behind)
    behind = behind[marked.end() :] if marked else behind
    return not behind or any(mark.startswith(behind[: len(mark)]) for mark in _MARKS)


def _arguments(body: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key.strip(): _value(text, properties.get(key.strip())) for key, text in _PARAMETER.findall(body)}


def _value(text: str, schema: Any) -> Any:
    """A text where the schema says so, or says nothing; else what it is as JSON."""
    types = schema.get("type", []) if isinstance(schema, Mapping) else "string"
    if types in ("string", ["string"]):
        return text
    if text.strip() in _PYTHONS:
        return _PYTHONS[text.strip()]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if "string" in types and value is not None else value
