"""What a client may ask about its jobs, and change of one."""

from typing import ClassVar

from marshmallow import EXCLUDE, Schema, fields, validate

from app.api.schemas.fields import TextField
from app.api.schemas.request_schema import RequestSchema
from app.jobs.job import Priority, Status

CURSOR = r"^[0-9]{1,12}\.[0-9]{6}$"  # of the list: opaque to clients
MAX_WAIT_SECONDS = 60
DEFAULT_LIMIT, MAX_LIMIT = 20, 100


class JobQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    wait = fields.Float(
        load_default=0.0,
        validate=validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "How many seconds to wait for the end of the job."},
    )


class JobListQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    status = fields.Enum(Status, by_value=True)
    limit = fields.Integer(load_default=DEFAULT_LIMIT, validate=validate.Range(1, MAX_LIMIT))
    cursor = fields.String(
        validate=validate.Regexp(CURSOR, error="Must be the next_cursor of an earlier page."),
        metadata={"description": "The `next_cursor` of the page before."},
    )


class JobChangeSchema(RequestSchema):
    """What can be changed of a job that waits."""

    example: ClassVar = {"priority": "high"}

    priority = fields.Enum(
        Priority,
        by_value=TextField,
        required=True,
        metadata={
            "description": "Waiting jobs of a higher priority start first. Not higher than the API key may ask for."
        },
    )
