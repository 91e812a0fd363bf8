"""API keys in the HTTP API: the bodies and queries of `/admin/keys`, and the key object."""

import dataclasses
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from app.access.api_key import DEFAULT_SCOPES, NAME, ApiKey, Limits, Scope, fault_of_name
from app.api.schemas.fields import BoundedList, RealNumber, TextField, Timestamp, WholeNumber, constant
from app.api.schemas.request_schema import RequestSchema
from app.jobs.job import Priority

MAX_MODELS = 256  # names of models and adapters
LEAST_WEIGHT, MOST_WEIGHT = 0.01, 1000.0
MAX_GRACE_SECONDS = 2_592_000  # 30 days
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ApiKey)} | {"scopes": DEFAULT_SCOPES}
_LIMITS: Mapping[str, str] = {
    "requests_per_minute": "Requests.",
    "tokens_per_minute": "Tokens of prompts and completions.",
    "concurrent_jobs": "Jobs that have not ended: that wait or run at the same time.",
    "waiting_jobs": "Jobs that wait at the same time.",
    "max_tokens": "Tokens that one job may generate: the answer to a request, or one of its choices.",
    "tokens_per_day": "Tokens of prompts and completions, by days of UTC.",
    "tokens_per_month": "Tokens of prompts and completions, by months of UTC.",
}


class _Name(TextField):
    def __init__(self, about: str, **options: Any) -> None:
        super().__init__(metadata={"description": about, "pattern": f"^{NAME.pattern}$"}, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = super()._deserialize(value, attr, data, **kwargs)
        if fault := fault_of_name(name):
            raise ValidationError(fault)
        return name


class _FutureTime(TextField):
    """A time of RFC 3339 that is to come, loaded as Unix seconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            moment = datetime.fromisoformat(super()._deserialize(value, attr, data, **kwargs))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise ValidationError("Must be a time with its time zone, such as 2027-01-31T12:00:00Z.")
        if moment.timestamp() <= time.time():
            raise ValidationError("Must be in the future.")
        return moment.timestamp()


def _limit(about: str) -> WholeNumber:
    return WholeNumber(validate=validate.Range(min=1), metadata={"description": about})


class LimitsSchema(RequestSchema):
    class Meta(RequestSchema.Meta):
        include = {name: _limit(about) for name, about in _LIMITS.items()}  # noqa: RUF012 - as marshmallow has it


class _KeyFieldsSchema(RequestSchema):
    group = _Name("Keys of one group share one turn and computed prefixes. Default: none.")
    scopes = BoundedList(
        fields.Enum(Scope, by_value=TextField),
        validate=validate.Length(min=1, max=4 * len(Scope)),
        metadata={"description": "What the key may do; `admin` may do everything. Default: all but admin."},
    )
    models = BoundedList(
        TextField(validate=validate.Length(min=1, max=256)),
        validate=validate.Length(max=MAX_MODELS),
        metadata={
            "description": "The models and LoRA adapters that it may ask for, by name; `*` stands for any characters. "
            "Default, and for an empty list: all."
        },
    )
    weight = RealNumber(
        validate=validate.Range(LEAST_WEIGHT, MOST_WEIGHT),
        metadata={"description": "Its share of a busy service, compared with the weights of others. Default: 1."},
    )
    max_priority = fields.Enum(
        Priority, by_value=TextField, metadata={"description": "The highest that it may ask for. Default: high."}
    )
    limits = fields.Nested(LimitsSchema, metadata={"description": "Default: none."})
    expires_at = _FutureTime(
        metadata={"format": "date-time", "description": "After it the key opens nothing. Default: never."}
    )


class CreateKeySchema(_KeyFieldsSchema):
    example: ClassVar = {"name": "alice", "limits": {"tokens_per_day": 100_000}}

    name = _Name("For people; no other key may have it.", required=True)


class UpdateKeySchema(_KeyFieldsSchema):
    """What changes. null stands for the default: no group, no limit, no end."""

    example: ClassVar = {"limits": {"tokens_per_day": 200_000}}

    name = _Name("For people; no other key may have it.")

    def load(self, data: Any, **options: Any) -> Any:
        changes: dict[str, Any] = super().load(data, **options)
        for name, value in data.items():
            if value is None and name in _KeyFieldsSchema._declared_fields:
                changes[name] = dict.fromkeys(_LIMITS) if name == "limits" else _DEFAULTS[name]
        limits = data.get("limits") or {}
        if "limits" in changes:
            changes["limits"] |= {name: None for name, value in limits.items() if value is None}
        return changes


class RotateQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    grace_seconds = fields.Integer(
        load_default=0,
        validate=validate.Range(0, MAX_GRACE_SECONDS),
        metadata={"description": "How long the last secret stays valid beside the new one."},
    )


class KeyListQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    limit = fields.Integer(load_default=DEFAULT_LIMIT, validate=validate.Range(1, MAX_LIMIT))
    after = fields.String(metadata={"description": "The id of the last key of the page before."})
    revoked = fields.Boolean(load_default=False, metadata={"description": "List revoked keys too."})


class LimitsObjectSchema(Schema):
    class Meta:
        include = {  # noqa: RUF012 - as marshmallow has it
            name: fields.Integer(required=True, allow_none=True, metadata={"description": about})
            for name, about in _LIMITS.items()
        }


def _time(about: str) -> Timestamp:
    return Timestamp(required=True, allow_none=True, metadata={"description": about})


class KeySchema(Schema):
    id = fields.String(required=True, metadata={"description": "Also the owner of what is made with the key."})
    object = constant("api_key")
    name = fields.String(required=True)
    group = fields.Function(lambda key: key.group or None, required=True, allow_none=True, metadata={"type": "string"})
    scopes = fields.Function(
        lambda key: [scope.value for scope in Scope if scope in key.scopes],
        required=True,
        metadata={"type": "array", "items": {"type": "string", "enum": [scope.value for scope in Scope]}},
    )
    models = fields.List(fields.String(), required=True)
    weight = fields.Float(required=True)
    max_priority = fields.Enum(Priority, by_value=True, required=True)
    limits = fields.Nested(LimitsObjectSchema, required=True)
    created_at = _time("null: the key stands in the configuration.")
    expires_at = _time("null: never.")
    last_used_at = _time("Up to a minute old; null: not yet, or the key stands in the configuration.")
    revoked_at = _time("null: it is valid.")
    source = fields.Function(
        lambda key: "configuration" if key.is_configured else "redis",
        required=True,
        metadata={"type": "string", "enum": ["configuration", "redis"]},
    )


class SecretKeySchema(KeySchema):
    key = fields.String(
        required=True, metadata={"description": "The secret. It is shown in this response and nowhere else."}
    )


class KeyListSchema(Schema):
    object = constant("list")
    data = fields.List(fields.Nested(KeySchema), required=True)
    has_more = fields.Boolean(required=True)


def wanted_key(values: Mapping[str, Any]) -> ApiKey:
    """Return the key that loaded values of `CreateKeySchema` describe."""
    given = {**values, "limits": Limits(**values.get("limits", {}))}
    if "scopes" in values:
        given["scopes"] = frozenset(values["scopes"])
    if "models" in values:
        given["models"] = tuple(values["models"])
    return ApiKey(id="", digest="", **given)
