"""Who sends the current request: its API key, whose jobs it makes, and whose it may see.

The one place where a request's key and the scope that its route declares are checked. Routes and the application's
factory import this module; everything below the routes gets a principal or an owner as an argument.
"""

from collections.abc import Callable, Mapping, Set

import redis
from flask import Flask, current_app, g, request
from werkzeug.datastructures import Headers

from app.access.api_key import OWNER, ApiKey, Scope
from app.access.authentication import Authentication
from app.api.request_notes import note_key
from app.errors import MissingScope, Unauthorized
from app.jobs.principal import ANONYMOUS_PRINCIPAL, Principal

OPEN_PATHS = frozenset({"/healthz", "/check", "/readyz", "/", "/docs", "/openapi.json"})
"""Paths that need no API key: a probe and a browser have none to send."""
METRICS_PATH = "/metrics"  # open where `metrics.open` says so
_OPEN_FOLDERS = ("/docs/", "/static/", "/web/")  # files of the pages
_LABEL_VARIABLE = "HTTP_OPENAI_PROJECT"  # the header OpenAI-Project
OWNER_PARAMETER = {
    "in": "query",
    "name": "owner",
    "schema": {"type": "string", "minLength": 1},
    "description": "The name or the id of an API key, or `anonymous`: what belongs to it. Needs the scope `admin`, "
    "except for the key's own. Default: for a list, the caller's own; for an id, its owner, as far as the "
    "key may see it.",
}
_OTHER_KEY_HEADERS = ("api-key", "x-api-key", "x-goog-api-key")  # of clients of Azure, Anthropic and Google
_EXTENSION = "llm_api_authentication"


def register(
    app: Flask, authentication: Authentication, scopes: Mapping[str, Scope | None], open_paths: Set[str]
) -> None:
    """Check the key of each request, except those to the open paths.

    Args:
        scopes: the scope that each endpoint needs; None: any key. An endpoint that is not in it needs `ADMIN`.
    """
    app.extensions[_EXTENSION] = authentication

    def identify() -> None:
        path, endpoint = request.path, request.endpoint
        is_open = path in open_paths or path.startswith(_OPEN_FOLDERS)
        scope = None if is_open or endpoint is None else scopes.get(endpoint, Scope.ADMIN)
        key = _key(request.headers, authentication) if not is_open and authentication.is_needed() else None
        g.api_key = key
        if key is not None and not key.allows(scope):
            raise MissingScope(
                f"the API key {key.name!r} has no scope {str(scope)!r}, which {request.method} {path} needs; ask for a "
                "key that has it"
            )
        # the environ, not request.headers: there a header that is missing costs an exception
        principal = g.principal = _principal(key, request.environ.get(_LABEL_VARIABLE))
        note_key(principal.key_name)

    app.before_request(identify)


def authentication_of(app: Flask) -> Authentication:
    authentication: Authentication = app.extensions[_EXTENSION]
    return authentication


def optional_key() -> ApiKey | None:
    """Return the key of a request to an open path. None: it came without one, or with none of this server's."""
    try:
        return _key(request.headers, authentication_of(current_app))
    except Unauthorized:
        return None


def current_key() -> ApiKey | None:
    """Return the API key of this request; None where no key is needed."""
    key: ApiKey | None = g.api_key
    return key


def key_if_checked() -> ApiKey | None:
    """Return the API key of this request. None: it has none, or was rejected before it was looked for."""
    key: ApiKey | None = g.get("api_key")
    return key


def key_watch() -> Callable[[], bool]:
    """Return a function that says whether this request may still be answered: its key is valid, or none is needed.

    For responses that last long; it needs no request. Where Redis does not answer, a key stays what it was.
    """
    authentication, secret = authentication_of(current_app), _secret(request.headers)

    def is_valid() -> bool:
        try:
            return not authentication.is_needed() or (secret is not None and authentication.key_of(secret) is not None)
        except Unauthorized:
            return False
        except redis.RedisError:
            return True

    return is_valid


def require_key() -> None:
    """Raise Unauthorized for a request without a key, though this server needs none yet."""
    if current_key() is None:
        raise Unauthorized(
            "this needs an API key with the scope admin, and this server has no key yet; make the first on its "
            "machine: llm-api keys create NAME --scope admin"
        )


def current_principal() -> Principal:
    """Return whose jobs this request makes; without API keys that is `ANONYMOUS_PRINCIPAL` for all."""
    principal: Principal = g.principal
    return principal


def current_owner() -> str:
    """Return who owns what this request makes."""
    return current_principal().owner


def viewed_owner() -> str | None:
    """Return whose objects this request may read and change by their ids; None: everybody's, for an admin.

    Raises as `listed_owner` does.
    """
    key = current_key()
    if "owner" not in request.args and key is not None and key.allows(Scope.ADMIN):
        return None
    return listed_owner()


def listed_owner() -> str:
    """Return whose objects this request lists: the one that `?owner=` names, else the caller's own.

    Raises:
        MissingScope: it names another, and the key has no scope admin.
        KeyNotFound: there is no such key.
    """
    wanted, key = request.args.get("owner"), current_key()
    if wanted is None or wanted == current_owner() or (key is not None and wanted == key.name):
        return current_owner()
    if key is None or not key.allows(Scope.ADMIN):
        raise MissingScope("only an API key with the scope admin sees what belongs to another; leave out owner")
    if OWNER.fullmatch(wanted):  # also of a key that is revoked or forgotten
        return wanted
    return authentication_of(current_app).store.read(wanted).id


def _key(headers: Headers, authentication: Authentication) -> ApiKey:
    """Raises Unauthorized."""
    secret = _secret(headers)
    if secret is not None and (key := authentication.key_of(secret)) is not None:
        return key
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    raise Unauthorized(_missing_key(headers, scheme, token.strip()))


def _secret(headers: Headers) -> bytes | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    return token.strip().encode("latin-1")  # latin-1: WSGI's spelling of bytes


def _principal(key: ApiKey | None, label: str | None) -> Principal:
    if key is None:
        principal = ANONYMOUS_PRINCIPAL
    else:
        principal = Principal(
            owner=key.id,
            tenant=key.tenant,
            key_name=key.name,
            weight=key.weight,
            max_priority=key.max_priority,
            models=key.models,
            max_tokens=key.limits.max_tokens,
        )
    return principal.with_label(label)


def _missing_key(headers: Headers, scheme: str, token: str) -> str:
    """Return what is wrong with the key of a request, without the key."""
    if scheme.lower() == "bearer" and token:
        return (
            "Incorrect API key provided: the key in Authorization: Bearer <key> is not one of this server's; check it, "
            "also for the end of a line or quotes in it"
        )
    if scheme:
        return "the header Authorization has another form than Authorization: Bearer <key>; send it in this form"
    other = next((name for name in _OTHER_KEY_HEADERS if headers.get(name)), None)
    not_read = "" if other is None else f"; the header {other} is not read"
    return f"this server wants an API key{not_read}; send the header Authorization: Bearer <key>"
