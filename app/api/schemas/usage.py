"""The query of `GET /usage`, and its response."""

from datetime import date
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate, validates_schema
from webargs.fields import DelimitedList

from app.api.schemas.fields import constant
from app.ledger.usage import Group

FORMATS = ("json", "csv")


class UsageQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    first = fields.Date(
        data_key="from",
        metadata={"description": "The first day (UTC), as `2026-11-29`. Default: 29 days before the last."},
    )
    last = fields.Date(data_key="to", metadata={"description": "The last day (UTC). Default: today."})
    by = DelimitedList(
        fields.Enum(Group, by_value=True),
        validate=validate.Length(min=1),
        metadata={"description": "What has a row of its own, in this order. Default: `day,model`."},
    )
    format = fields.String(
        validate=validate.OneOf(FORMATS),
        metadata={"description": "`json` or `csv`. Default: as the header `Accept` asks, else `json`."},
    )

    @validates_schema
    def _begins_before_it_ends(self, values: dict[str, Any], **_context: Any) -> None:
        first: date | None = values.get("first")
        last: date | None = values.get("last")
        if first is not None and last is not None and first > last:
            raise ValidationError("Must not be after `to`.", "from")


class UsageCountersSchema(Schema):
    requests = fields.Integer(
        required=True, metadata={"description": "Ended jobs; each choice of `n` and each line of a batch is one."}
    )
    succeeded = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    canceled = fields.Integer(required=True)
    expired = fields.Integer(required=True)
    cache_hits = fields.Integer(
        required=True, metadata={"description": "Those that the output of an earlier job answered (`cache.ttl`)."}
    )
    prompt_tokens = fields.Integer(required=True)
    cached_tokens = fields.Integer(
        required=True, metadata={"description": "Those of the prompts that were not computed again."}
    )
    completion_tokens = fields.Integer(required=True)
    compute_seconds = fields.Float(
        required=True, metadata={"description": "How long workers ran the jobs, side by side with others or alone."}
    )


class UsageRowSchema(UsageCountersSchema):
    """A group that was not asked for is left out."""

    day = fields.String(metadata={"format": "date"})
    model = fields.String()
    key = fields.String(metadata={"description": "The id of an API key, `anonymous` without keys."})
    key_name = fields.String(metadata={"description": "The name that the key had last; beside `key`."})
    tenant = fields.String(metadata={"description": "The group of the key, else its id."})
    label = fields.String(
        metadata={"description": "The header `OpenAI-Project` or the field `user` of requests; empty without them."}
    )


class UsageReportSchema(Schema):
    object = constant("usage")
    first = fields.Date(data_key="from", required=True)
    last = fields.Date(data_key="to", required=True)
    by = fields.List(fields.Enum(Group, by_value=True), required=True)
    data = fields.List(fields.Nested(UsageRowSchema), required=True)
    total = fields.Nested(UsageCountersSchema, required=True)
