"""Fields beside the prompt that say how a job is run; every endpoint that makes a job has them."""

from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, fields, validate

from app.api.schemas.json_fields import RealNumber, Text, WholeNumber
from app.api.schemas.webhook import WebhookSchema
from app.jobs.job import OnDisconnect, Priority, Webhook

MIN_TIMEOUT_SECONDS = 1
MIN_EXPIRY_SECONDS = 1
MAX_TIMEOUT_SECONDS = 86_400 * 7


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """timeout, expires_in, ttl: seconds of running, of waiting, and kept after the end.

    None: the server's `jobs.timeout`, for ever, `jobs.ttl`, and the endpoint's own habit for `on_disconnect`.
    """

    priority: Priority = Priority.NORMAL
    timeout: float | None = None
    expires_in: float | None = None
    ttl: int | None = None
    on_disconnect: OnDisconnect | None = None
    webhook: Webhook | None = None


class JobOptionsSchema(Schema):
    priority = fields.Enum(
        Priority,
        by_value=Text,
        allow_none=True,
        metadata={"description": "Among waiting jobs, high ones start first. Default: normal."},
    )
    timeout = RealNumber(
        allow_none=True,
        validate=validate.Range(MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS),
        metadata={"description": "Seconds the job may run; never more than the server's jobs.timeout."},
    )
    expires_in = RealNumber(
        allow_none=True,
        validate=validate.Range(min=MIN_EXPIRY_SECONDS),
        metadata={
            "description": "Seconds the job may wait for its turn: it ends `expired` rather than start later. "
            "Default: it waits as long as it takes."
        },
    )
    ttl = WholeNumber(
        allow_none=True,
        validate=validate.Range(min=1),
        metadata={
            "description": "Seconds the job is kept after its end. Default, and never more than, the server's "
            "jobs.ttl: a larger value is taken for that."
        },
    )
    on_disconnect = fields.Enum(
        OnDisconnect,
        by_value=Text,
        allow_none=True,
        metadata={
            "description": "What happens to the job when the client leaves. "
            "Default: cancel for whoever waits or streams without an Idempotency-Key, else continue."
        },
    )
    webhook = fields.Nested(WebhookSchema, allow_none=True)


def given(data: dict[str, Any]) -> dict[str, Any]:
    """Without what is null: null means "not given"."""
    return {name: value for name, value in data.items() if value is not None}
