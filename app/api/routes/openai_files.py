"""`/v1/files`: files of requests, and the results of batches."""

from collections.abc import Iterator
from typing import IO, Any

from flask import Response, g, request

from app.access.api_key import Scope
from app.api.access import OWNER_PARAMETER, current_owner, listed_owner, viewed_owner
from app.api.batches.files import File, file_object
from app.api.batches.input import MAX_LINES
from app.api.batches.paging import Cut, list_object
from app.api.json_response import json_response
from app.api.openapi import Blueprint, describe_response
from app.api.request_body import body_limit
from app.api.request_context import services
from app.api.request_parser import invalid_request
from app.api.schemas.openai.files import (
    FileDeletedSchema,
    FileListQuerySchema,
    FileListSchema,
    FileSchema,
    UploadSchema,
)
from app.errors import BodyTooLarge

blueprint = Blueprint("openai_files", __name__, description="OpenAI's API: files.")

FILE_ID = {"in": "path", "name": "file_id", "schema": {"type": "string"}}
OCTETS = "application/octet-stream"
_MAX_NAME = 255  # characters
MAX_FILE_LINES = 2 * MAX_LINES  # each line of a file is an entry of a list, also a blank one
_PIECE_BYTES = 1_048_576
_PATH = "/v1/files/<file_id>"


def _take_files() -> None:
    """Set the limit of uploads, which is another than that of other bodies."""
    request.max_content_length, g.body_limit = body_limit(request.path, services().config)


blueprint.before_request(_take_files)


@blueprint.endpoint(
    "POST",
    "/v1/files",
    form=UploadSchema,
    responses={200: describe_response("The file, kept.", FileSchema)},
    scope=Scope.BATCHES,
    problems=(400, 413, 503),
)
def upload_file(form: dict[str, Any]) -> Response:
    """Keep a file of requests for a batch, for `files.ttl` seconds or as long as `expires_after` says."""
    config, upload = services().config.files, form["file"]
    size, lines = _measure(upload.stream)
    if size > config.max_bytes:
        raise BodyTooLarge(f"the file is longer than files.max_bytes allows, {config.max_bytes}; make several of it")
    if lines > MAX_FILE_LINES:
        raise invalid_request({"file": [f"It has more than {MAX_FILE_LINES} lines, with blank ones; make several."]})
    kept = services().files.put(
        _lines(upload.stream),
        owner=current_owner(),
        filename=(upload.filename or "file.jsonl")[:_MAX_NAME],
        size=size,
        ttl_seconds=min(form.get("seconds", config.ttl), config.ttl),
    )
    return json_response(file_object(kept))


@blueprint.endpoint(
    "GET",
    "/v1/files",
    query=FileListQuerySchema,
    parameters=[OWNER_PARAMETER],
    responses={200: describe_response("The caller's files.", FileListSchema)},
    scope=Scope.BATCHES,
    problems=(400, 404, 503),
)
def list_files(query: dict[str, Any]) -> Response:
    """The caller's files, newest first."""
    cut = Cut(limit=query["limit"], after=query.get("after"), newest_first=query["order"] == "desc")
    files, has_more = services().files.list_files(listed_owner(), cut, query.get("purpose"))
    return json_response(list_object([file_object(file) for file in files], has_more))


@blueprint.endpoint(
    "GET",
    _PATH,
    scope=Scope.BATCHES,
    parameters=[FILE_ID, OWNER_PARAMETER],
    responses={200: describe_response("The file.", FileSchema)},
    problems=(404, 503),
)
def read_file(file_id: str) -> Response:
    """What a file is."""
    return json_response(file_object(_existing(file_id)))


@blueprint.endpoint(
    "GET",
    f"{_PATH}/content",
    parameters=[FILE_ID, OWNER_PARAMETER],
    responses={200: describe_response("Its content, as it was sent or written.", {OCTETS: None})},
    scope=Scope.BATCHES,
    problems=(404, 503),
)
def read_file_content(file_id: str) -> Response:
    """What is in a file."""
    file = _existing(file_id)
    pages = services().files.lines(file.id)
    content = ("".join(lines).encode() for lines in pages)
    return Response(content, content_type=OCTETS, headers={"Content-Length": str(file.bytes)})


@blueprint.endpoint(
    "DELETE",
    _PATH,
    parameters=[FILE_ID, OWNER_PARAMETER],
    responses={200: describe_response("The file is gone.", FileDeletedSchema)},
    scope=Scope.BATCHES,
    problems=(404, 409, 503),
)
def delete_file(file_id: str) -> Response:
    """Delete a file that no unfinished batch reads."""
    services().files.delete(_existing(file_id))
    return json_response({"id": file_id, "object": "file", "deleted": True})


def _existing(file_id: str) -> File:
    return services().files.read(file_id, viewed_owner())


def _measure(stream: IO[bytes]) -> tuple[int, int]:
    """Return its bytes and its ends of lines."""
    size = lines = 0
    while piece := stream.read(_PIECE_BYTES):
        size, lines = size + len(piece), lines + piece.count(b"\n")
    stream.seek(0)
    return size, lines


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Raises InvalidRequest."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise invalid_request({"file": [f"Line {number} is not UTF-8; send JSON lines in UTF-8."]}) from None
