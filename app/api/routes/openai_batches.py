"""`/v1/batches`: files of requests, processed line by line at low priority."""

import itertools
from typing import Any

from flask import Response

from app.access.api_key import Scope
from app.api.access import OWNER_PARAMETER, current_owner, current_principal, listed_owner, viewed_owner
from app.api.batches.batch import Batch
from app.api.batches.input import inspect
from app.api.batches.paging import Cut, list_object
from app.api.json_response import json_response
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.request_parser import invalid_request
from app.api.schemas.openai.batches import (
    BatchBody,
    BatchListQuerySchema,
    BatchListSchema,
    BatchObjectSchema,
    BatchSchema,
)
from app.errors import Conflict, FileNotFound

blueprint = Blueprint("openai_batches", __name__, description="OpenAI's API: batches.")

BATCH_ID = {"in": "path", "name": "batch_id", "schema": {"type": "string"}}
_PATH = "/v1/batches/<batch_id>"


@blueprint.endpoint(
    "POST",
    "/v1/batches",
    body=BatchSchema,
    responses={
        200: describe_response("The batch: in progress, or failed where its file cannot be run.", BatchObjectSchema)
    },
    scope=Scope.BATCHES,
    problems=(400, 413, 503),
)
def create_batch(body: BatchBody) -> Response:
    """Run every line of a file, at low priority. The results come in a file of their own, in any order.

    Each line is an object with `custom_id`, `method` (POST), `url` (the endpoint) and `body` (the request).
    """
    files, longest = services().files, services().config.files.ttl
    try:
        file = files.read(body.input_file_id, current_owner())
        files.raise_if_full(file.owner)
        batch = services().batches.create(
            file,
            current_principal(),
            endpoint=body.endpoint,
            completion_window=body.completion_window,
            window_seconds=body.window_seconds,
            not_before=body.not_before,
            files_ttl_seconds=min(body.files_ttl_seconds or longest, longest),
            metadata=body.metadata,
            inspected=inspect(itertools.chain.from_iterable(files.lines(file.id))),
        )
    except FileNotFound as error:
        raise invalid_request({"input_file_id": [error.detail]}) from None
    return json_response(_document(batch))


@blueprint.endpoint(
    "GET",
    "/v1/batches",
    query=BatchListQuerySchema,
    parameters=[OWNER_PARAMETER],
    responses={200: describe_response("The caller's batches, newest first.", BatchListSchema)},
    scope=Scope.BATCHES,
    problems=(400, 404, 503),
)
def list_batches(query: dict[str, Any]) -> Response:
    """The caller's batches, newest first."""
    cut = Cut(limit=query["limit"], after=query.get("after"))
    batches, has_more = services().batches.list_batches(listed_owner(), cut)
    return json_response(list_object([_document(batch) for batch in batches], has_more))


@blueprint.endpoint(
    "GET",
    _PATH,
    parameters=[BATCH_ID, OWNER_PARAMETER],
    responses={200: describe_response("The batch.", BatchObjectSchema)},
    scope=Scope.BATCHES,
    problems=(404, 503),
)
def read_batch(batch_id: str) -> Response:
    """The state of a batch."""
    return json_response(_document(services().batches.read(batch_id, viewed_owner())))


@blueprint.endpoint(
    "POST",
    f"{_PATH}/cancel",
    parameters=[BATCH_ID, OWNER_PARAMETER],
    responses={200: describe_response("The batch; `cancelling` until its jobs have ended.", BatchObjectSchema)},
    scope=Scope.BATCHES,
    problems=(404, 409, 503),
)
def cancel_batch(batch_id: str) -> Response:
    """Cancel a batch: what has a result already is kept, every other line gets an error in the error file."""
    batches = services().batches
    batch = batches.read(batch_id, viewed_owner())
    if batch.has_ended:
        raise Conflict(f"the batch has ended already: it is {batch.status}")
    batches.close(batch, "cancelled")
    return json_response(_document(batches.read(batch_id, viewed_owner())))


def _document(batch: Batch) -> dict[str, Any]:
    return batch.document(services().config.batches.opening)
