"""The bodies and queries of `/v1/batches`."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.fields import TextField, WholeNumber, constant
from app.api.schemas.not_before import NotBefore
from app.api.schemas.openai.files import MAX_TTL_SECONDS, PageQuerySchema, PageSchema
from app.api.schemas.openai.requests import Metadata
from app.api.schemas.openai.response_bodies import OutputTokensDetailsSchema, UsageDetailsSchema, shown_metadata
from app.api.schemas.request_schema import RequestSchema

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
STATUSES = ("failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WINDOW = re.compile(r"([1-9][0-9]{0,6})([smhd])\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBody:
    """not_before: Unix seconds.

    files_ttl_seconds: how long the files that the batch writes are kept; None = the server's `files.ttl`.
    """

    input_file_id: str
    endpoint: str
    completion_window: str
    window_seconds: int
    not_before: float | None = None
    files_ttl_seconds: int | None = None
    metadata: dict[str, str] | None = None


class ExpiresAfterSchema(RequestSchema):
    anchor = TextField(
        required=True,
        validate=validate.Equal("created_at", error="Must be created_at."),
        metadata={"enum": ["created_at"]},
    )
    seconds = WholeNumber(required=True, validate=validate.Range(1, MAX_TTL_SECONDS))


class BatchSchema(RequestSchema):
    example: ClassVar = {
        "input_file_id": "file-...",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }

    input_file_id = TextField(
        required=True, metadata={"description": "The id of a file that was uploaded for the purpose batch."}
    )
    endpoint = TextField(required=True, validate=validate.OneOf(ENDPOINTS))
    completion_window = TextField(
        required=True,
        metadata={
            "pattern": "^[1-9][0-9]{0,6}[smhd]$",
            "description": "24h as in OpenAI's API, or any other time up to 30d. Requests without a response by then "
            "get an error in the error file.",
        },
    )
    not_before = NotBefore(
        "No line is submitted before this time, and the completion window begins then. Default: at once."
    )
    metadata = Metadata()
    output_expires_after = fields.Nested(
        ExpiresAfterSchema,
        metadata={
            "description": "When the files that the batch writes expire; never later than the server's files.ttl."
        },
    )

    @post_load
    def _body(self, data: dict[str, Any], **kwargs: Any) -> BatchBody:
        expires_after = data.pop("output_expires_after", None)
        start = data.pop("not_before", None)
        seconds = _window_seconds(data["completion_window"])
        return BatchBody(
            **data,
            window_seconds=seconds,
            not_before=start and start.at,
            files_ttl_seconds=expires_after and expires_after["seconds"],
        )


def _window_seconds(window: str) -> int:
    match = _WINDOW.match(window)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= MAX_TTL_SECONDS:
        raise ValidationError({"completion_window": ["Must be a time up to 30 days, such as 24h, 90m or 7d."]})
    return seconds


class BatchFaultSchema(Schema):
    code = fields.String(required=True)
    message = fields.String(required=True)
    line = fields.Integer(required=True, allow_none=True, metadata={"description": "1 = the first line of the file."})
    param = fields.String(required=True, allow_none=True)


class BatchFaultsSchema(Schema):
    object = constant("list")
    data = fields.List(fields.Nested(BatchFaultSchema), required=True)


class RequestCountsSchema(Schema):
    total = fields.Integer(required=True)
    completed = fields.Integer(required=True, metadata={"description": "The lines of the output file."})
    failed = fields.Integer(required=True, metadata={"description": "The lines of the error file."})


class BatchUsageSchema(Schema):
    input_tokens = fields.Integer(required=True)
    input_tokens_details = fields.Nested(UsageDetailsSchema, required=True)
    output_tokens = fields.Integer(required=True)
    output_tokens_details = fields.Nested(OutputTokensDetailsSchema, required=True)
    total_tokens = fields.Integer(required=True)


def _time() -> fields.Integer:
    return fields.Integer(required=True, allow_none=True)


class BatchObjectSchema(Schema):
    id = fields.String(required=True)
    object = constant("batch")
    endpoint = constant(*ENDPOINTS)
    model = fields.String(required=True)
    errors = fields.Nested(
        BatchFaultsSchema,
        required=True,
        allow_none=True,
        metadata={"description": "Why the batch has failed: the lines of its file that are wrong."},
    )
    input_file_id = fields.String(required=True)
    completion_window = fields.String(required=True)
    status = constant(*STATUSES)
    output_file_id = fields.String(required=True, allow_none=True)
    error_file_id = fields.String(required=True, allow_none=True)
    created_at = fields.Integer(required=True)
    expires_at = fields.Integer(required=True)
    in_progress_at = _time()
    finalizing_at = _time()
    completed_at = _time()
    failed_at = _time()
    expired_at = _time()
    cancelling_at = _time()
    cancelled_at = _time()
    request_counts = fields.Nested(RequestCountsSchema, required=True)
    usage = fields.Nested(BatchUsageSchema, required=True)
    metadata = shown_metadata()
    not_before = _time()
    hours = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The hours in which lines are submitted (`batches.hours`), with their time zone."},
    )
    waits_until = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "When lines are submitted (again); null: now, or there are none left."},
    )


class BatchListSchema(PageSchema):
    data = fields.List(fields.Nested(BatchObjectSchema), required=True)


class BatchListQuerySchema(PageQuerySchema):
    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))
