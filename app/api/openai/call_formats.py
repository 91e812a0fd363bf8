"""What one call looks like: an object with a name and arguments, or a name before the arguments."""

import json
import re
from collections.abc import Collection, Mapping

from app.api.openai.json_scanner import JsonScanner, is_json, members_of
from app.api.openai.tool_calls import Call

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_TYPES = ('"function"', '"function_call"')
_BEFORE_THE_NAME = frozenset({"type", "id", "index", "parameters", "arguments"})
_HEAD = re.compile(r"([a-zA-Z0-9_.-]{1,64})\s*(\[CALL_ID\]\w{0,64}\s*)?(\[ARGS\]\s*)?")
_MARKS = ("[ARGS]", "[CALL_ID]")
_NAME_MEMBER = re.compile(r'"name"\s*:\s*"([^"\\]*)"')


def call_of(members: Mapping[str, str], *, needs_arguments: bool) -> Call | None:
    """Return the call that an object is, None where it is something else.

    Args:
        members: of the object, as they are written. The arguments stay as the model wrote them.
        needs_arguments: without them it is no call; else it has none.
    """
    function = members.get("function", "")
    if function.startswith("{"):
        members = members_of(function)
    name = _text(members.get("name", function))
    arguments = members.get("arguments", members.get("parameters", "" if needs_arguments else "{}"))
    if arguments.startswith('"'):
        arguments = _text(arguments).strip()
        arguments = arguments.encode(errors="backslashreplace").decode() if is_json(arguments) else ""
    if arguments == "null" and not needs_arguments:
        arguments = "{}"
    if not FUNCTION_NAME.fullmatch(name) or not arguments.startswith("{"):
        return None
    return Call(name, arguments)


def may_be_call(object_: JsonScanner, names: Collection[str]) -> bool:
    """Return whether an object that is not complete may become a call of one of these functions.

    What is False once is False for every continuation.
    """
    for key, value in object_.members.items():
        if key == "name":
            return _text(value) in names
        if key == "function":
            return _text(members_of(value).get("name", "") if value.startswith("{") else value) in names
        if key not in _BEFORE_THE_NAME or (key == "type" and value not in _TYPES):
            return False
    return object_.key is None or object_.key in _BEFORE_THE_NAME | {"name", "function"}


def names_function(text: str, names: Collection[str]) -> bool:
    """Return whether an unfinished object has the name of one of these functions."""
    return any(name in names for name in _NAME_MEMBER.findall(text))


def head_of(text: str, names: Collection[str] | None) -> tuple[str, int] | None:
    """Return the name in front of `{...}` and where this begins, perhaps after `[ARGS]`. None: there is no name yet.

    names: of the functions, None = any.
    """
    match = _HEAD.match(text)
    if match is None or not text.startswith("{", match.end()) or not _is_among(match[1], names):
        return None
    return match[1], match.end()


def may_have_head(text: str, names: Collection[str] | None) -> bool:
    """Return whether a text may become `NAME[ARGS]{...}`."""
    match = _HEAD.match(text)
    if match is None:
        return not text
    rest = text[match.end() :]
    if not rest and match.end() == match.end(1):
        return names is None or any(name.startswith(match[1]) for name in names)
    has_begun = not rest or (match[3] is None and any(mark.startswith(rest) for mark in _MARKS))
    return _is_among(match[1], names) and (has_begun or rest.startswith("{"))


def has_mark(text: str) -> bool:
    return any(mark in text for mark in _MARKS)


def _is_among(name: str, names: Collection[str] | None) -> bool:
    return bool(FUNCTION_NAME.fullmatch(name)) if names is None else name in names


def _text(written: str) -> str:
    """Return the text that a JSON string is; other values are none."""
    return str(json.loads(written, strict=False)) if written.startswith('"') else ""
