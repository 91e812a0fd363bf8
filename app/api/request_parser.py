"""Turns requests into validated data: webargs, with this API's reading of JSON and its errors."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from flask import Request, current_app
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.datastructures import CombinedMultiDict

from app.api.ignored_fields import report_ignored
from app.api.problems import OPENAI_PREFIX
from app.api.request_body import read_json, require_plain
from app.api.schemas.generate import GenerateSchema
from app.api.schemas.request_schema import RequestSchema
from app.errors import InvalidRequest

IGNORES_UNKNOWN = "IGNORES_UNKNOWN_FIELDS"  # keys of the application's configuration
IGNORES_PARAMS = "IGNORES_UNKNOWN_PARAMS"
NOT_OF_FAMILY = "PARAMS_THAT_THE_FAMILY_DOES_NOT_HAVE"
_MAX_ERRORS = 16
_MAX_PATH = 100  # characters; a path contains names that the client chose
_IN_DETAIL = 3  # errors in the one sentence of the problem document


class RequestParser(FlaskParser):
    """Reads a body as JSON, whatever its Content-Type (curl -d declares a form), and raises errors of `app.errors`."""

    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {  # noqa: RUF012 - as webargs declares it
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "files": None,  # the schema decides about unknown parts
    }

    def load_json(self, req: Request, schema: Schema) -> dict[str, Any]:
        """Read the body, without unknown fields if the server ignores them. Raises as `read_json` does."""
        assert isinstance(schema, RequestSchema), "an endpoint declares its body"
        body, dropped = read_json(req, schema), list[str]()
        if isinstance(schema, GenerateSchema) and current_app.config[IGNORES_PARAMS]:
            body, dropped = schema.without_unknown(body, current_app.config[NOT_OF_FAMILY])
        elif self._ignores_unknown(req):
            body, dropped = schema.without_unknown(body)
        report_ignored(dropped)
        return body

    @staticmethod
    def _ignores_unknown(req: Request) -> bool:
        return current_app.config[IGNORES_UNKNOWN] and req.path.startswith(OPENAI_PREFIX)

    def load_files(self, req: Request, schema: Schema) -> MultiDictProxy:
        """Read a form, its files beside its other parts. Raises UnsupportedEncoding."""
        require_plain(req)
        return MultiDictProxy(CombinedMultiDict([req.files, req.form]), schema)

    def handle_error(self, error: ValidationError, req: Request, schema: Schema, **kwargs: Any) -> NoReturn:
        assert isinstance(error.messages, dict), "webargs puts the messages under their location"
        (messages,) = error.messages.values()
        raise invalid_request(messages) from None


def invalid_request(messages: Mapping[str, Any]) -> InvalidRequest:
    """Return the error for marshmallow's messages, with the fields by their dotted paths."""
    errors: dict[str, list[str]] = {}
    for path, message in itertools.islice(_flatten(messages, ""), _MAX_ERRORS):
        errors.setdefault(path, []).append(message)
    sentences = [f"{path}: {texts[0]}" for path, texts in errors.items()]
    more = f" And {len(sentences) - _IN_DETAIL} more, see errors." if len(sentences) > _IN_DETAIL else ""
    return InvalidRequest(" ".join(sentences[:_IN_DETAIL]) + more, errors=errors)


def _flatten(messages: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from _flatten(inner, path if name == "_schema" else f"{path}.{name}" if path else str(name))
    elif isinstance(messages, list):
        for inner in messages:
            yield from _flatten(inner, path)
    else:
        yield path[:_MAX_PATH].encode(errors="backslashreplace").decode(), str(messages)
