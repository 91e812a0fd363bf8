"""The OpenAPI 3.1 document, which flask-smorest makes of the schemas, and the blueprint of every route."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import flask_smorest
from apispec import APISpec, BasePlugin
from flask import Flask
from marshmallow import Schema

from app import VERSION
from app.access.api_key import Scope
from app.api import ignored_fields
from app.api.access import OPEN_PATHS
from app.api.json_response import JSON, PROBLEM, write_json
from app.api.openai.unenforced import HEADER
from app.api.problems import OPENAI_PREFIX
from app.api.request_parser import RequestParser
from app.api.schemas.problem import OpenAIErrorSchema, ProblemSchema
from app.api.schemas.request_schema import RequestSchema

TITLE = "LLM API"
OPENAPI_VERSION = "3.1.0"
_EXTENSION = "llm_api_openapi"

View = TypeVar("View", bound=Callable[..., Any])
Also = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]

_MEANINGS = {
    400: "The body is not JSON, or not an object.",
    401: "The API key is missing, unknown or expired.",
    403: "`missing_scope`: the API key lacks the scope that this needs. `forbidden`: it does not allow this. Without "
    "keys, `cross_site_request`: a page of another site sent this. `unknown_host`: the `Host` is not known here.",
    404: "The job or the API key does not exist, or the job belongs to another key.",
    409: "`job_canceled`: the job was canceled. `conflict`: this Idempotency-Key was used for another request, or the "
    "state of the object does not allow it.",
    413: "The body is longer than the server accepts.",
    415: "The `Content-Encoding` of the body is not supported; gzip and deflate are.",
    422: "A field is invalid; `errors` says which and why.",
    429: "`rate_limit_exceeded`: the API key has reached a limit, `limit` says which. `budget_spent`: its tokens of "
    "the day or of the month are used.",
    500: "The engine or the service failed.",
    502: "The server failed that a worker of the openai family forwards requests to.",
    503: "No worker is ready, the queue is full, Redis does not respond, or the server is stopping (`Location`: the "
    "job continues); try again.",
    504: "The job has not ended in time.",
}
_OPENAI_MEANINGS = {
    400: "The body is not JSON, or a field is invalid; `param` says which.",
    404: "The model, file, batch, response or API key does not exist.",
    409: "The state of the object does not allow it, or this Idempotency-Key was used for another request; `code` says "
    "which.",
}
_RETRY_AFTER = {
    "Retry-After": {
        "schema": {"type": "integer"},
        "description": "Seconds, 1 to 120. For a full queue: until the jobs that are waiting now should have started.",
    }
}
_RETRY_LIMITED = {
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until the limit allows the request again."}
}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
LOCATION = {
    "Location": {
        "schema": {"type": "string", "format": "uri-reference"},
        "description": "The job of this request, `/jobs/{id}`. It can be read there and followed under `/events`, "
        "also if this response breaks off.",
    }
}
CACHE_STATUS = {
    "Cache-Status": {
        "schema": {"type": "string"},
        "description": "`llm-api; hit` (RFC 9211): the response to an equal request, from the cache.",
    }
}
IGNORED = {
    ignored_fields.HEADER: {
        "schema": {"type": "string"},
        "description": "The paths of fields that were ignored: unknown ones (`openai.unknown_fields: ignore`, "
        "`generate.unknown_params: ignore`), tools that this server does not have, and their formats.",
    }
}
UNENFORCED = {
    HEADER: {
        "schema": {"type": "string"},
        "description": "The paths of the keywords in the request's JSON Schemas that no grammar holds: the output may "
        "violate them. At most 16; a part that is no letter or digit is percent-encoded.",
    }
}
_HEADERS: dict[int, dict[str, Any]] = {
    401: _CHALLENGE,
    409: LOCATION,
    500: LOCATION,
    502: LOCATION,
    429: _RETRY_LIMITED,
    503: _RETRY_AFTER | LOCATION,
    504: LOCATION,
}
_BODIES: dict[str, dict[str, type[Schema]]] = {
    "Problem": {PROBLEM: ProblemSchema},
    "OpenAIError": {JSON: OpenAIErrorSchema},
}


def describe_response(
    description: str,
    content: Mapping[str, Any] | type[Schema] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a documented response.

    Args:
        content: schemas by media type (None: any content); a schema class alone means JSON.
    """
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

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scopes: dict[str, Scope | None] = {}  # by the name of the view

    def endpoint(
        self,
        method: str,
        rule: str,
        *,
        responses: Mapping[int, dict[str, Any]],
        scope: Scope | None,
        problems: Sequence[int] = (),
        body: type[RequestSchema] | None = None,
        query: type[Schema] | None = None,
        form: type[Schema] | None = None,
        parameters: Sequence[Mapping[str, Any]] = (),
    ) -> Callable[[View], View]:
        """Add a route and document it.

        Args:
            responses: the documented responses, by status.
            scope: what an API key needs for it; None: nothing. `app.api.access` checks it.
            problems: statuses of the error responses; 401 and 403 are added, 415 if there is a body, 429 where requests
                are counted.
            body, query, form: schemas of the request; the view gets what they load, in this order.
            parameters: documentation of headers and paths.
        """

        def add(view: View) -> View:
            all_problems = (*problems, 415) if body or form else problems
            if scope is Scope.INFERENCE and method == "POST":
                all_problems = (*all_problems, 429)
            all_responses = {**responses, **{status: f"{_kind(rule)}{status}" for status in all_problems}}
            documented = self.doc(responses=all_responses, operationId=view.__name__)(view)
            for schema, location in ((body, "json"), (query, "query"), (form, "files")):
                if schema is not None:  # one instance for all requests: making it is slow
                    status = 400 if rule.startswith(OPENAI_PREFIX) else 422
                    shown = {"example": body.example} if body is not None and schema is body else {}
                    accepted = self.arguments(schema(), location=location, error_status_code=status, **shown)
                    documented = accepted(documented)
            self.scopes[view.__name__] = scope
            self.add_url_rule(rule, view.__name__, documented, methods=[method], parameters=list(parameters))
            return view

        return add


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no annotations
    """The document of one application. Errors are written by `app.api.problems`, not by flask-smorest."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        """Add no handler: flask-smorest's own responses have another shape."""

    def _register_pagination_header(self) -> None:
        """Add no header: lists are paged by cursors in their bodies."""

    def _register_responses(self) -> None:
        for status, description in _MEANINGS.items():
            for kind, content in _BODIES.items():
                meaning = _OPENAI_MEANINGS.get(status, description) if kind == "OpenAIError" else description
                documented = describe_response(meaning, content, _HEADERS.get(status))
                self.spec.components.response(f"{kind}{status}", documented, lazy=True)


class _SchemaExtras(BasePlugin):
    """Adds a schema's attribute `also`: JSON Schema for what its fields cannot express, or a function that makes it."""

    def schema_helper(self, name: str, definition: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        also: Also | None = getattr(kwargs.get("schema"), "also", None)
        return also(definition) if callable(also) else also


class _Access(BasePlugin):
    """Documents which operations need an API key, and that these may respond with 401, and all with 403.

    Keys may be made while the service runs. Where the configuration asks for none, a key is therefore optional.
    """

    def __init__(self, *, is_required: bool) -> None:
        self._security: list[dict[str, list[str]]] = [{"api_key": []}, *([] if is_required else [{}])]

    def init_spec(self, spec: APISpec) -> None:
        about = "An API key: made by `llm-api keys create`, or set in `auth.api_keys`."
        spec.components.security_scheme("api_key", {"type": "http", "scheme": "bearer", "description": about})

    def operation_helper(
        self, path: str | None = None, operations: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        for operation in (operations or {}).values():
            operation["responses"][403] = f"{_kind(path or '')}403"
            if path not in OPEN_PATHS:
                operation["security"] = self._security
                operation["responses"][401] = f"{_kind(path or '')}401"


def scopes_of(blueprints: Sequence[Blueprint]) -> dict[str, Scope | None]:
    """Return the scope that each endpoint declares, by the endpoint's name."""
    return {f"{one.name}.{view}": scope for one in blueprints for view, scope in one.scopes.items()}


def register(app: Flask, blueprints: Sequence[Blueprint], *, requires_key: bool) -> None:
    """Add the routes to the application, and the function that writes their document."""
    app.config.update(API_TITLE=TITLE, API_VERSION=VERSION, OPENAPI_VERSION=OPENAPI_VERSION)
    access = _Access(is_required=requires_key)
    api = Api(app, spec_kwargs={"extra_plugins": [_SchemaExtras(), access]})
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    app.extensions[_EXTENSION] = cache(lambda: write_json(api.spec.to_dict()))


def document(app: Flask) -> str:
    """Return the OpenAPI document as JSON. It is written once per process."""
    written: str = app.extensions[_EXTENSION]()
    return written


def _kind(rule: str) -> str:
    return "OpenAIError" if rule.startswith(OPENAI_PREFIX) else "Problem"
