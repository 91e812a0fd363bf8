"""OpenAPI 3.1, written by flask-smorest out of the schemas that validate, and the blueprint every route stands on."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import flask_smorest
from apispec import APISpec, BasePlugin
from flask import Flask
from marshmallow import Schema

from app.api.auth import OPEN_PATHS
from app.api.json_response import JSON, PROBLEM, write_json
from app.api.problems import OPENAI_PREFIX
from app.api.request_parser import RequestParser
from app.api.schemas.problem import OpenAIErrorSchema, ProblemSchema

TITLE, VERSION = "LLM API", "0.1.0"
OPENAPI_VERSION = "3.1.0"
_EXTENSION = "llm_api_openapi"

View = TypeVar("View", bound=Callable[..., Any])
Also = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]

_MEANINGS = {
    400: "The body is not JSON, or no object.",
    401: "The API key is missing or unknown.",
    404: "There is no such job, or it is somebody else's.",
    409: "`job_canceled`: the job was canceled. `conflict`: another request came with this Idempotency-Key before.",
    413: "The body is longer than the server takes.",
    422: "A field is wrong; `errors` says which and why.",
    500: "The engine or the service failed.",
    502: "The server that a worker of the openai family forwards to has failed.",
    503: "No worker, a full queue, Redis is away, or the server stops (`Location`: its job goes on); try again.",
    504: "The job has not ended in time.",
}
_OPENAI_MEANINGS = {
    400: "The body is not JSON, or a field is wrong; `param` says which.",
    404: "There is no such model, file, batch or response here.",
    409: "It is not in a state for that, or another request came with this Idempotency-Key; `code` says which.",
}
_RETRY_AFTER = {
    "Retry-After": {
        "schema": {"type": "integer"},
        "description": "Seconds, 1 to 120. Of a full queue: until the jobs that wait now should have started.",
    }
}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
LOCATION = {
    "Location": {
        "schema": {"type": "string", "format": "uri-reference"},
        "description": "The job made by this request, `/jobs/{id}`: it can be read there, and followed under its "
        "`/events`, also after this answer broke off.",
    }
}
CACHE_STATUS = {
    "Cache-Status": {
        "schema": {"type": "string"},
        "description": "`llm-api; hit` (RFC 9211): the answer to the same request of before, out of the cache.",
    }
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: _CHALLENGE,
    409: LOCATION,
    500: LOCATION,
    502: LOCATION,
    503: _RETRY_AFTER | LOCATION,
    504: LOCATION,
}
_BODIES: dict[str, dict[str, type[Schema]]] = {
    "Problem": {PROBLEM: ProblemSchema},
    "OpenAIError": {JSON: OpenAIErrorSchema},
}


def answer(
    description: str,
    content: Mapping[str, Any] | type[Schema] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One documented response. content: schemas (None: not said) by media type; a schema class alone means JSON."""
    if isinstance(content, type):
        content = {JSON: content}
    documented: dict[str, Any] = {"description": description}
    if content:
        documented["content"] = {media: {"schema": schema} if schema else {} for media, schema in content.items()}
    if headers:
        documented["headers"] = dict(headers)
    return documented


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # flask-smorest has no annotations
    ARGUMENTS_PARSER = RequestParser()

    def endpoint(
        self,
        method: str,
        rule: str,
        *,
        answers: Mapping[int, dict[str, Any]],
        problems: Sequence[int] = (),
        body: type[Schema] | None = None,
        query: type[Schema] | None = None,
        form: type[Schema] | None = None,
        parameters: Sequence[Mapping[str, Any]] = (),
    ) -> Callable[[View], View]:
        """A route: what the schemas `query`, `body` and `form` load is passed to the view, and all of it is documented.

        problems: statuses of the error answers; 401 is added where keys are set.
        """

        def add(view: View) -> View:
            responses = {**answers, **{status: f"{_kind(rule)}{status}" for status in problems}}
            documented = self.doc(responses=responses, operationId=view.__name__)(view)
            for schema, location in ((body, "json"), (query, "query"), (form, "files")):
                if schema is not None:  # one for all requests: making it is slow
                    status = 400 if rule.startswith(OPENAI_PREFIX) else 422
                    documented = self.arguments(schema(), location=location, error_status_code=status)(documented)
            self.add_url_rule(rule, view.__name__, documented, methods=[method], parameters=list(parameters))
            return view

        return add


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no annotations
    """The document of one application. Errors are written by `app.api.problems`, not by flask-smorest."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        """flask-smorest's own handler would answer with another shape."""

    def _register_pagination_header(self) -> None:
        """Lists are paged by cursors, in their bodies."""

    def _register_responses(self) -> None:
        for status, description in _MEANINGS.items():
            for kind, content in _BODIES.items():
                meaning = _OPENAI_MEANINGS.get(status, description) if kind == "OpenAIError" else description
                documented = answer(meaning, content, _HEADERS.get(status))
                self.spec.components.response(f"{kind}{status}", documented, lazy=True)


class _Contradictions(BasePlugin):
    """Adds to a schema what its fields cannot say: its attribute `also`, JSON Schema, or what makes it of the rest."""

    def schema_helper(self, name: str, definition: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        also: Also | None = getattr(kwargs.get("schema"), "also", None)
        return also(definition) if callable(also) else also


class _Keys(BasePlugin):
    """With keys set, every operation but the open ones asks for one and may answer 401."""

    def init_spec(self, spec: APISpec) -> None:
        spec.components.security_scheme(
            "api_key", {"type": "http", "scheme": "bearer", "description": "One of `auth.api_keys`."}
        )

    def operation_helper(
        self, path: str | None = None, operations: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if path in OPEN_PATHS or operations is None:
            return
        for operation in operations.values():
            operation["security"] = [{"api_key": []}]
            operation["responses"][401] = f"{_kind(path or '')}401"


def register(app: Flask, blueprints: Sequence[Blueprint], *, with_keys: bool) -> None:
    """Add the routes to the application, and what writes their `document`."""
    app.config.update(API_TITLE=TITLE, API_VERSION=VERSION, OPENAPI_VERSION=OPENAPI_VERSION)
    api = Api(app, spec_kwargs={"extra_plugins": [_Contradictions(), *([_Keys()] if with_keys else [])]})
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    app.extensions[_EXTENSION] = cache(lambda: write_json(api.spec.to_dict()))


def document(app: Flask) -> str:
    """The OpenAPI document as JSON, written once per process."""
    written: str = app.extensions[_EXTENSION]()
    return written


def _kind(rule: str) -> str:
    return "OpenAIError" if rule.startswith(OPENAI_PREFIX) else "Problem"
