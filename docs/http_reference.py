"""What the page `http-reference.md` lists: the operations and objects of the application's own OpenAPI document."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from app.api.application import create_app
from app.config.settings import Config

NEVER_CONNECTED = "redis://localhost:1"

Json = Mapping[str, Any]


def openapi_document() -> dict[str, Any]:
    """The document as a running service returns it; no connection to Redis is made."""
    app = create_app(Config(model_name="model", redis_url=NEVER_CONNECTED))
    document: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return document


def http_reference(document: Json) -> str:
    """The rest of the page, in Markdown: a section for each operation, then one for each object."""
    schemas, responses = document["components"]["schemas"], document["components"]["responses"]
    parts = ["## Operations\n"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                parts += _operation(method, path, operation, item.get("parameters", []), responses)
    parts.append("## Objects\n")
    for name, schema in sorted(schemas.items()):
        parts += [f"### {name} {{#{_anchor(name)}}}\n", *_fields(schema)]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Json, shared: list[Json], responses: Json) -> Iterator[str]:
    yield f"### {method.upper()} {path} {{#{operation['operationId']}}}\n"
    yield operation["summary"] + "\n"
    if "description" in operation:
        yield operation["description"] + "\n"
    parameters = [*shared, *operation.get("parameters", [])]
    if parameters:
        rows = [
            (_name(each["name"], each.get("required", False)), each["in"], _type(each["schema"]), _about(each))
            for each in parameters
        ]
        yield _table(("parameter", "in", "type", "meaning"), rows)
    body = operation.get("requestBody", {}).get("content", {})
    for media, content in body.items():
        yield f"Body, `{media}`: {_type(content['schema'])}\n"
    rows = []
    for status, answer in sorted(operation["responses"].items()):
        resolved = responses[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        contents = resolved.get("content", {}).items()
        holds = ", ".join(f"`{media}` {_type(content.get('schema', {}))}".rstrip() for media, content in contents)
        rows.append((status, holds, _line(resolved["description"])))
    yield _table(("status", "body", "meaning"), rows)


def _fields(schema: Json) -> Iterator[str]:
    if "description" in schema:
        yield schema["description"] + "\n"
    required = set(schema.get("required", ()))
    rows = [
        (_name(name, name in required), _type(field), _about(field)) for name, field in schema["properties"].items()
    ]
    yield _table(("field", "type", "meaning"), rows)


def _type(schema: Json) -> str:
    """A schema as one phrase, objects of the document as links."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[word]))
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    kinds = schema.get("type", "any value")
    return " or ".join(_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _kind(kind: str, schema: Json) -> str:
    if kind == "array":
        items = _type(schema.get("items", {}))
        return "list of any values" if items == "any value" else f"list of {items}"
    if kind in ("integer", "number"):
        least, most = schema.get("minimum"), schema.get("maximum")
        if least is not None and most is not None:
            return f"{kind} {least:.15g} to {most:.15g}"
        return f"{kind} from {least:.15g}" if least is not None else kind
    if kind == "string" and "format" in schema:
        return f"string ({schema['format']})"
    return kind


def _about(field: Json) -> str:
    schema = field.get("schema", field)
    parts = [field.get("description", schema.get("description", ""))]
    if "default" in schema:
        parts.append(f"Default: `{json.dumps(schema['default'])}`.")
    if field.get("deprecated"):
        parts.append("Deprecated.")
    return _line(" ".join(part for part in parts if part))


def _name(name: str, required: bool) -> str:
    return f"**`{name}`**" if required else f"`{name}`"


def _anchor(name: str) -> str:
    return f"object-{name.lower()}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "\n".join(f"| {line} |" for line in cells) + "\n"
