"""The bodies and queries of `/v1/files`."""

from typing import Any

from flask_smorest.fields import Upload
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema
from werkzeug.datastructures import FileStorage

from app.api.schemas.fields import TextField, constant
from app.api.schemas.request_schema import RequestSchema

MAX_TTL_SECONDS = 2_592_000  # 30 days, as OpenAI's API has it
MAX_PAGE = 10_000
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"


class FilePart(Upload):  # type: ignore[misc]  # flask-smorest has no annotations
    """A part of a form that is a file."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> FileStorage:
        if not isinstance(value, FileStorage):
            raise ValidationError("Must be a file: a part of the form that has a filename.")
        return value


class UploadSchema(RequestSchema):
    """The parts of a form."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Leave the fields as they are: a form has no null."""

    file = FilePart(required=True, metadata={"description": "Requests, one JSON object per line, in UTF-8."})
    purpose = TextField(
        required=True,
        validate=validate.Equal("batch", error="Only files of the purpose batch are supported."),
        metadata={"enum": ["batch"]},
    )
    anchor = TextField(
        data_key=_ANCHOR,
        validate=validate.Equal("created_at", error="Must be created_at."),
        metadata={"enum": ["created_at"]},
    )
    seconds = fields.Integer(
        data_key=_SECONDS,
        validate=validate.Range(1, MAX_TTL_SECONDS),
        metadata={"description": "Seconds the file is kept; never more than the server's files.ttl."},
    )

    @validates_schema
    def _both_or_neither(self, data: dict[str, Any], **kwargs: Any) -> None:
        if ("anchor" in data) != ("seconds" in data):
            raise ValidationError({_SECONDS: [f"{_ANCHOR} and {_SECONDS} belong together; send both or neither."]})


class FileSchema(Schema):
    id = fields.String(required=True)
    object = constant("file")
    bytes = fields.Integer(required=True)
    created_at = fields.Integer(required=True)
    expires_at = fields.Integer(required=True)
    filename = fields.String(required=True)
    purpose = constant("batch", "batch_output")
    status = constant("processed")


class PageSchema(Schema):
    """A page of a list that is paged by ids."""

    object = constant("list")
    first_id = fields.String(required=True, allow_none=True)
    last_id = fields.String(required=True, allow_none=True, metadata={"description": "The `after` of the next page."})
    has_more = fields.Boolean(required=True)


class FileListSchema(PageSchema):
    data = fields.List(fields.Nested(FileSchema), required=True)


class PageQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    after = fields.String(metadata={"description": "The `last_id` of the page before."})


class FileListQuerySchema(PageQuerySchema):
    limit = fields.Integer(load_default=MAX_PAGE, validate=validate.Range(1, MAX_PAGE))
    order = fields.String(load_default="desc", validate=validate.OneOf(("asc", "desc")))
    purpose = fields.String()


class FileDeletedSchema(Schema):
    id = fields.String(required=True)
    object = constant("file")
    deleted = fields.Boolean(required=True)
