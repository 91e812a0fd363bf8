"""Calls that are not written as one JSON object: Qwen3-Coder's XML, and Mistral's name before the arguments."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

Schema = Mapping[str, Any]

_FUNCTION = re.compile(r"<function=([^>\s]+)\s*>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\s*\Z)", re.DOTALL)
_PYTHONS = {"True": True, "False": False, "None": None}  # models that write much Python use these
_CALL_ID = re.compile(r"\[CALL_ID\]\w*")
_NAMED = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
_MARKS = ("[ARGS]", "[CALL_ID]", "{")


def xml_calls(text: str, parameters: Mapping[str, Schema]) -> list[dict[str, Any]]:
    """Return name and arguments of each `<function=NAME><parameter=KEY>VALUE</parameter>...</function>`.

    parameters: the JSON Schema of each function's arguments, by which a value is a text, or JSON.
    """
    return [
        {"name": name, "arguments": _arguments(body, parameters.get(name, {}).get("properties", {}))}
        for name, body in _FUNCTION.findall(text)
    ]


def may_be_named(text: str, names: Collection[str]) -> bool:
    """Return whether a text is, or may become, `NAME[ARGS]{...}`."""
    return any(_may_be_call_of(name, text) for name in names)


def after_name(text: str) -> tuple[str, int] | None:
    """Return the name before the arguments and where these begin; None where there are none yet."""
    match = _NAMED.match(text)
    return (match[1], match.end()) if match else None


def _may_be_call_of(name: str, text: str) -> bool:
    if len(text) <= len(name):
        return name.startswith(text)
    if not text.startswith(name):
        return False
    rest = text[len(name) :].lstrip()
    marked = _CALL_ID.match(rest)
    rest = rest[marked.end() :] if marked else rest
    return not rest or any(mark.startswith(rest[: len(mark)]) for mark in _MARKS)


def _arguments(body: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key.strip(): _value(text, properties.get(key.strip())) for key, text in _PARAMETER.findall(body)}


def _value(text: str, schema: Any) -> Any:
    """Return the text itself where the schema wants a string or is empty; else its value as JSON."""
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
