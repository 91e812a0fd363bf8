"""JSON Schemas as pydantic 2.14, zod 4 and OpenAPI documents have them: what each accepts, and what it does not.

Of types whose schema was refused at some time, or nearly so. A key is the library and the type.
"""

import json
from typing import Any

from llguidance import LLMatcher, LLTokenizer

Case = tuple[dict[str, Any], list[Any], list[Any]]  # schema, values that match it, values that do not

UUID4, UUID1 = "f47ac10b-58cc-4372-a567-0e02b2c3d479", "f47ac10b-58cc-1372-a567-0e02b2c3d479"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])"
_DATE = (
    r"(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|"
    r"\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|"
    r"(?:02)-(?:0[1-9]|1\d|2[0-8])))"
)


def _text(format_name: str, pattern: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "string", "format": format_name} | ({} if pattern is None else {"pattern": pattern}) | more


def _tagged(tag: str, kind: str) -> dict[str, Any]:
    properties = {"kind": {"const": tag, "type": "string"}, "value": {"type": kind}}
    return {"type": "object", "properties": properties, "required": ["kind", "value"]}


COLOR = {"Color": {"enum": ["r", "g"], "title": "Color", "type": "string"}}
HELD: dict[str, Case] = {
    "pydantic Path": (_text("path"), ["/etc/hosts"], [1]),
    "pydantic FilePath": (_text("file-path"), ["a.txt"], [None]),
    "pydantic SecretStr": (_text("password", writeOnly=True), ["hunter2"], [2]),
    "pydantic bytes": (_text("binary"), ["abc"], [[1]]),
    "pydantic UUID": (_text("uuid"), [UUID1, UUID4], ["f47ac10b"]),
    "pydantic UUID4": (_text("uuid4"), [UUID4], [UUID1, "a"]),
    "pydantic UUID1": (_text("uuid1"), [UUID1], [UUID4]),
    "pydantic IPv4Network": (_text("ipv4network"), ["10.0.0.0/8"], [8]),
    "pydantic IPv4Interface": (_text("ipv4interface"), ["10.0.0.1/8"], [8]),
    "pydantic IPvAnyAddress": (_text("ipvanyaddress"), ["::1"], [8]),
    "pydantic Base64Bytes": (_text("base64"), ["", "aGk=", "aGVsbG8h"], ["aGk", "!!!!"]),
    "pydantic Base64UrlBytes": (_text("base64url"), ["aGk", "aGk=", "-_-_"], ["+/+/"]),
    "pydantic Pattern": (_text("regex"), ["^a$"], [1]),
    "pydantic datetime": (
        _text("date-time"),
        ["2024-02-03T04:05:06Z", "2024-02-03T04:05:06.123456789+01:00"],
        ["2024-02-03", "2024-02-03T04:05:06.1234567890Z"],
    ),
    "pydantic time": (_text("time"), ["04:05:06Z", "04:05:06.5-09:00"], ["04:05:06.1234567890Z"]),
    "pydantic timedelta": (_text("duration"), ["P3DT12H", "PT5S"], ["3 days"]),
    "pydantic Decimal": (
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]},
        [1.25, "1.25", "-.5", "+007."],
        [None, "", "-", ".", "1.2.3", "Huggy"],
    ),
    "a schema that others may extend": ({"$dynamicAnchor": "meta", "type": "integer"}, [1], ["a"]),
    "pydantic AnyUrl": (_text("uri", minLength=1), ["https://example.org/a?b#c"], ["", "a b"]),
    "pydantic MongoDsn": (_text("multi-host-uri", minLength=1), ["mongodb://a,b/c"], [""]),
    "pydantic Json": (
        {"contentMediaType": "application/json", "contentSchema": {"type": "integer"}, "type": "string"},
        ["{}"],
        [{}],
    ),
    "pydantic ByteSize": (
        {"anyOf": [{"pattern": r"^\s*(\d*\.?\d+)\s*(\w+)?", "type": "string"}, {"minimum": 0, "type": "integer"}]},
        ["12 kB", 5],
        [-5],
    ),
    "pydantic dict[Color, int]": (
        {
            "$defs": COLOR,
            "additionalProperties": {"type": "integer"},
            "propertyNames": {"$ref": "#/$defs/Color"},
            "type": "object",
        },
        [{}, {"r": 1}, {"r": 1, "g": 2}],
        [{"b": 1}, {"r": "1"}],
    ),
    "pydantic dict[str, int]": (
        {"additionalProperties": {"type": "integer"}, "type": "object"},
        [{}, {"any": 1}],
        [{"any": "1"}],
    ),
    "pydantic tagged union": (
        {
            "$defs": {"A": _tagged("a", "integer"), "B": _tagged("b", "string")},
            "discriminator": {"mapping": {"a": "#/$defs/A", "b": "#/$defs/B"}, "propertyName": "kind"},
            "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
        },
        [{"kind": "a", "value": 1}, {"kind": "b", "value": "1"}],
        [{"kind": "a", "value": "1"}, {"kind": "c", "value": 1}],
    ),
    "pydantic Any": ({}, [None, 1.5, "a", [[1], {"b": []}]], []),
    "pydantic int": ({"type": "integer"}, [0, -(2**62), 2**63 - 1024], [1.5, 2**63, 10**30]),
    "zod record": (
        {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}},
        [{}, {"any": 1.5}],
        [{"any": "1"}],
    ),
    "zod record of an enum": (
        {
            "type": "object",
            "propertyNames": {"type": "string", "enum": ["a", "b"]},
            "additionalProperties": {"type": "number"},
            "required": ["a", "b"],
        },
        [{"a": 1, "b": 2}],
        [{"a": 1}, {"a": 1, "b": 2, "c": 3}],
    ),
    "zod record of a pattern": (
        {
            "type": "object",
            "propertyNames": {"type": "string", "pattern": "^x"},
            "additionalProperties": {"type": "number"},
        },
        [{"x1": 1}],
        [{"y1": 1}],
    ),
    "zod startsWith": (_text("starts_with", "^ab.*"), ["abc"], ["cab"]),
    "zod endsWith": (_text("ends_with", ".*ab$"), ["cab"], ["abc"]),
    "zod includes": (_text("includes", "ab"), ["cabc"], ["cba"]),
    "zod lowercase": (_text("lowercase", "^[^A-Z]*$"), ["ab c"], ["aB"]),
    "zod base64": (
        _text(
            "base64",
            "^$|^(?:[0-9a-zA-Z+/]{4})*(?:(?:[0-9a-zA-Z+/]{2}==)|(?:[0-9a-zA-Z+/]{3}=))?$",
            contentEncoding="base64",
        ),
        ["aGk="],
        ["aGk"],
    ),
    "zod e164": (_text("e164", r"^\+[1-9]\d{6,14}$"), ["+4912345678"], ["4912345678"]),
    "zod cuid2": (_text("cuid2", "^[0-9a-z]+$"), ["tz4a98xxat96iws9"], ["A-"]),
    "zod ulid": (
        _text("ulid", "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"),
        ["01ARZ3NDEKTSV4RRFFQ69G5FAV"],
        ["01ARZ3NDEKTSV4RRFFQ69G5FA"],
    ),
    "zod nanoid": (_text("nanoid", "^[a-zA-Z0-9_-]{21}$"), ["V1StGXR8_Z5jdHi6B-myT"], ["V1StGXR8"]),
    "zod jwt": (_text("jwt"), ["e30.e30.c2ln"], [1]),
    "zod mac": (
        _text("mac", "^(?:[0-9A-F]{2}:){5}[0-9A-F]{2}$|^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$"),
        ["00:1a:2b:3c:4d:5e"],
        ["00"],
    ),
    "zod cidrv4": (
        _text("cidrv4", rf"^({_OCTET}\.){{3}}{_OCTET}\/([0-9]|[1-2][0-9]|3[0-2])$"),
        ["10.0.0.0/8"],
        ["10.0.0.0/33"],
    ),
    "zod datetime": (
        _text("date-time", rf"^{_DATE}T(?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z))$"),
        ["2024-02-29T04:05:06.1Z"],
        ["2023-02-29T04:05:06Z", "2024-02-29T04:05:06+01:00", "2024-02-29T04:05:06.1234567890Z"],
    ),
    "zod duration": (
        _text(
            "duration",
            r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$",
        ),
        ["P1W", "P1Y2M3DT4H5M6S", "P3D", "PT7S", "PT8M", "P1YT2H"],
        ["P", "PT", "P1WT1H", "P1DT", "1D"],
    ),
    "zod hostname": (
        _text(
            "hostname",
            r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
            r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$",
        ),
        ["localhost", "www.example.org", ".".join(["a" * 62] * 4)],
        ["", "a-", "a" * 64, ".".join(["a" * 62] * 5)],
    ),
    "zod emoji": (
        _text(
            "emoji",
            r"^(?=[\s\S]*[\p{Extended_Pictographic}\p{Regional_Indicator}\u20E3])"
            r"[\p{Extended_Pictographic}\p{Emoji_Component}]+$",
        ),
        ["😀", "1\ufe0f\u20e3"],
        ["", "1", "a", "😀a"],
    ),
    "zod email of earlier releases": (
        _text(
            "email",
            r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
        ),
        ["a.b+c@example.org"],
        [".a@example.org", "a..b@example.org", "a@example"],
    ),
    "a password": (
        {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d)(?=.*[()|])[ -~]{4,}$"},
        ["ab(1C", "A1||"],
        ["abcdef", "ABC1", "abc1|", "A|1"],
    ),
    "zod int": ({"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1}, [2**53 - 1], [2**53]),
    "zod float32": (
        {"type": "number", "minimum": -3.4028234663852886e38, "maximum": 3.4028234663852886e38},
        [0.1, -2.5e15],
        ["0.1"],
    ),
    "zod float64": (
        {"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308},
        [0.1, 1e300],
        ["0.1"],
    ),
    "zod never": (
        {"type": "object", "properties": {"a": {"not": {}}, "b": {"type": "string"}}, "additionalProperties": False},
        [{}, {"b": "c"}],
        [{"a": 1}],
    ),
    "zod json": (
        {
            "anyOf": [
                {"type": "string"},
                {"type": "number"},
                {"type": "boolean"},
                {"type": "null"},
                {"type": "array", "items": {"$ref": "#"}},
                {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"$ref": "#"}},
            ]
        },
        [None, {"a": [1, {"b": True}]}],
        [],
    ),
    "zod xor": ({"oneOf": [{"type": "string"}, {"type": "number"}]}, ["a", 1], [None]),
    "OpenAPI int32": ({"type": "integer", "format": "int32"}, [-(2**31), 2**31 - 1], [2**31]),
    "OpenAPI int64": ({"type": "integer", "format": "int64"}, [2**62], [10**30]),
    "OpenAPI double": ({"type": "number", "format": "double"}, [1.5], ["1.5"]),
    "OpenAPI byte": (_text("byte"), ["aGk="], ["aGk"]),
    "OpenAPI uri-reference": (_text("uri-reference"), ["../a"], [1]),
    "OpenAPI uniqueItems": (
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": False},
        [[1, 1]],
        [["1"]],
    ),
    "a map of limited size": (
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2},
        [{"a": 1}, {"a": 1, "b": 2}],
        [{}, {"a": 1, "b": 2, "c": 3}],
    ),
    "one more member than those that are required": (
        {"type": "object", "properties": {"a": {}}, "required": ["a"], "minProperties": 2},
        [{"a": 1, "b": 2}],
        [{"a": 1}],
    ),
    "no other keyword than those that are null": (
        {"type": "string", "maxLength": None, "pattern": None, "format": None},
        ["a"],
        [1],
    ),
    "lengths as decimals": ({"type": "string", "minLength": 2.0, "maxLength": 3.0}, ["ab"], ["a", "abcd"]),
    "unevaluated properties": (
        {"type": "object", "properties": {"a": {"type": "string"}}, "unevaluatedProperties": False},
        [{"a": "b"}],
        [{"b": "c"}],
    ),
}
NOT_HELD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "pydantic set[int]": ({"items": {"type": "integer"}, "type": "array", "uniqueItems": True}, ["uniqueItems"]),
    "pydantic dict[UUID, int]": (
        {"additionalProperties": {"type": "integer"}, "propertyNames": {"format": "uuid"}, "type": "object"},
        ["propertyNames"],
    ),
    "a look ahead in the middle": ({"type": "string", "pattern": "^a(?=.*b)[a-z]+$"}, ["pattern"]),
    "a look ahead for what must not come": ({"type": "string", "pattern": "^(?!b)[a-z]+$"}, ["pattern"]),
    "a look ahead with a back reference": ({"type": "string", "pattern": r"^(?=(a|b)\1)[a-z]+$"}, ["pattern"]),
    "a word's border": ({"type": "string", "pattern": r"\bword\b"}, ["pattern"]),
    "a back reference": ({"type": "string", "pattern": r"^(a|b)\1$"}, ["pattern"]),
    "not": ({"type": "string", "not": {"enum": ["a"]}}, ["not"]),
    "if": (
        {"type": "object", "properties": {}, "if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {}},
        ["if"],
    ),
    "contains": ({"type": "array", "contains": {"const": 1}, "minContains": 2}, ["contains"]),
    "dependentRequired": ({"type": "object", "dependentRequired": {"a": ["b"]}}, ["dependentRequired"]),
    "unevaluatedProperties": (
        {"allOf": [{"type": "object", "properties": {"a": {}}}], "unevaluatedProperties": False},
        ["unevaluatedProperties"],
    ),
    "oneOf of overlapping schemas": (
        {"oneOf": [{"type": "string", "minLength": 2}, {"type": "string", "maxLength": 3}]},
        ["oneOf"],
    ),
    "steps that are too many": ({"type": "integer", "multipleOf": 223092870}, ["multipleOf"]),
    "a number of optional properties": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}, "c": {}},
            "additionalProperties": False,
            "minProperties": 2,
        },
        ["minProperties"],
    ),
    "more members than one, which may have the same name": (
        {"type": "object", "patternProperties": {"^x$": {"type": "boolean"}}, "minProperties": 2},
        ["minProperties"],
    ),
    "more members than those that are required and one": (
        {"type": "object", "properties": {"a": {}}, "required": ["a", "b"], "minProperties": 4},
        ["minProperties"],
    ),
    "a limit that is too far away": ({"type": "number", "minimum": 1e20}, ["minimum"]),
    "several, in depth": (
        {
            "type": "object",
            "properties": {
                "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "uniqueItems": True},
                "name": {"anyOf": [{"type": "null"}, {"type": "string", "not": {"const": ""}}]},
            },
            "$defs": {"Tag": {"type": "string", "pattern": r"\bx"}},
        },
        ["$defs.Tag.pattern", "properties.name.anyOf.1.not", "properties.tags.uniqueItems"],
    ),
}

_TOKENIZER = LLTokenizer("byte")


def matcher_of(schema: dict[str, Any]) -> LLMatcher:
    """Compile a schema with the library that the workers use; fails where that refuses it."""
    text = json.dumps({"grammars": [{"json_schema": schema | {"x-guidance": {"coerce_one_of": True}}}]})
    matcher = LLMatcher(_TOKENIZER, text, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def matches(schema: dict[str, Any], value: Any) -> bool:
    """Return whether a grammar of the schema accepts the value."""
    matcher, tokens = matcher_of(schema), list(json.dumps(value, ensure_ascii=False).encode())
    return bool(
        matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()
    )
