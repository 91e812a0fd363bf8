"""`/admin/keys`: make, list, change, replace and revoke API keys."""

import logging
from typing import Any

from flask import Response

from app.access.api_key import ApiKey, Scope
from app.api.access import current_key, require_key
from app.api.json_response import json_response
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.schemas.keys import (
    CreateKeySchema,
    KeyListQuerySchema,
    KeyListSchema,
    KeySchema,
    RotateQuerySchema,
    SecretKeySchema,
    UpdateKeySchema,
    wanted_key,
)
from app.errors import Conflict

blueprint = Blueprint("admin_keys", __name__, description="API keys, for an API key with the scope `admin`.")

KEY_ID = {"in": "path", "name": "key_id", "schema": {"type": "string"}, "description": "The id or the name of a key."}
_PATH = "/admin/keys/<key_id>"
_KEY = KeySchema()

blueprint.before_request(require_key)  # else any client of a server without keys could make itself an admin

logger = logging.getLogger(__name__)


@blueprint.endpoint(
    "GET",
    "/admin/keys",
    scope=Scope.ADMIN,
    query=KeyListQuerySchema,
    responses={200: describe_response("The keys: first those of the configuration, then the oldest.", KeyListSchema)},
    problems=(404, 422, 503),
)
def list_keys(query: dict[str, Any]) -> Response:
    """The API keys, without their secrets. Those of the configuration are on the first page, beyond its limit."""
    authentication, after = services().authentication, query.get("after")
    stored, has_more = authentication.store.list_keys(limit=query["limit"], after=after, with_revoked=query["revoked"])
    listed = stored if after is not None else [*authentication.configured, *stored]
    return json_response({"object": "list", "data": [_document(key) for key in listed], "has_more": has_more})


@blueprint.endpoint(
    "POST",
    "/admin/keys",
    scope=Scope.ADMIN,
    body=CreateKeySchema,
    responses={201: describe_response("The key, with its secret.", SecretKeySchema)},
    problems=(400, 409, 413, 422, 503),
)
def create_key(body: dict[str, Any]) -> Response:
    """Make an API key. The secret is in this response and nowhere else: Redis holds its digest only."""
    key, secret = services().authentication.store.create(wanted_key(body))
    _log("made", key)
    return json_response(_document(key) | {"key": secret}, 201)


@blueprint.endpoint(
    "GET",
    _PATH,
    scope=Scope.ADMIN,
    parameters=[KEY_ID],
    responses={200: describe_response("The key.", KeySchema)},
    problems=(404, 503),
)
def read_key(key_id: str) -> Response:
    """An API key, without its secret. A revoked one has its id only."""
    return json_response(_document(services().authentication.read(key_id)))


@blueprint.endpoint(
    "PATCH",
    _PATH,
    scope=Scope.ADMIN,
    body=UpdateKeySchema,
    parameters=[KEY_ID],
    responses={200: describe_response("The key as it is now.", KeySchema)},
    problems=(400, 404, 409, 413, 422, 503),
)
def update_key(body: dict[str, Any], key_id: str) -> Response:
    """Change an API key; null stands for the default. Every process uses it as it is then within a second."""
    key = services().authentication.store.update(_stored(key_id).id, body)
    _log("changed", key)
    return json_response(_document(key))


@blueprint.endpoint(
    "DELETE",
    _PATH,
    scope=Scope.ADMIN,
    parameters=[KEY_ID],
    responses={200: describe_response("The key, revoked.", KeySchema)},
    problems=(404, 409, 503),
)
def revoke_key(key_id: str) -> Response:
    """Revoke an API key: within a second it opens nothing. Its jobs continue; cancel them with `?owner=`."""
    key, store = _stored(key_id), services().authentication.store
    store.revoke(key.id)
    _log("revoked", key)
    return json_response(_document(store.read(key.id)))


@blueprint.endpoint(
    "POST",
    f"{_PATH}/rotate",
    scope=Scope.ADMIN,
    query=RotateQuerySchema,
    parameters=[KEY_ID],
    responses={200: describe_response("The key, with its new secret.", SecretKeySchema)},
    problems=(404, 409, 422, 503),
)
def rotate_key(query: dict[str, Any], key_id: str) -> Response:
    """Give an API key a new secret; the last one stays valid for a grace time. Its jobs, limits and usage stay."""
    key, secret = services().authentication.store.rotate(_stored(key_id).id, query["grace_seconds"])
    _log("replaced the secret of", key)
    return json_response(_document(key) | {"key": secret})


def _stored(key_id: str) -> ApiKey:
    """Return a key that can be changed here. Raises KeyNotFound, Conflict."""
    key = services().authentication.read(key_id)
    if key.is_configured:
        raise Conflict(
            "this key stands in the configuration (auth.api_keys, auth.admin_keys); change it there, restart"
        )
    return key


def _document(key: ApiKey) -> dict[str, Any]:
    return {"id": key.id, "object": "api_key", **_KEY.dump(key)}


def _log(deed: str, key: ApiKey) -> None:
    admin = current_key()
    logger.info("%s %s the API key %s (%s)", "" if admin is None else admin.name, deed, key.name, key.id)
