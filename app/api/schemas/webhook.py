"""Webhooks in the HTTP API: what a request asks for, and what has become of it."""

import re
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.schemas.fields import BoundedList, TextField, Timestamp
from app.api.schemas.request_schema import RequestSchema
from app.jobs.job import JOB_EVENTS, Webhook, WebhookState

MAX_URL_LENGTH = 2048
_PRINTABLE = re.compile(r"[!-~]+")  # nothing that could end a line of the request it is written into


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not _PRINTABLE.fullmatch(url):
        raise ValidationError("Must be an http or https URL in ASCII.")
    if parts.username is not None or parts.password is not None:
        raise ValidationError("Must not contain a user or a password: webhooks are signed.")
    if "#" in url:
        raise ValidationError("Must not have a fragment.")


class WebhookSchema(RequestSchema):
    url = TextField(
        required=True,
        validate=(validate.Length(max=MAX_URL_LENGTH), _check_url),
        metadata={
            "description": "Receives a POST, signed as the Standard Webhooks specification defines it.",
            "pattern": "^https?://[!-~]+$",
        },
    )
    events = BoundedList(
        TextField(validate=validate.OneOf(JOB_EVENTS)),
        validate=validate.Length(min=1, max=4 * len(JOB_EVENTS)),
        metadata={"description": "The ends of a job to report. Default: all."},
    )

    @post_load
    def _webhook(self, data: dict[str, Any], **kwargs: Any) -> Webhook:
        events = dict.fromkeys(data.get("events", JOB_EVENTS))
        return Webhook(url=data["url"], events=tuple(events))


class WebhookStatusSchema(Schema):
    state = fields.Enum(
        WebhookState,
        by_value=True,
        required=True,
        metadata={
            "description": "waiting: it is to be sent, or to be sent again. sent: the receiver responded with 2xx. "
            "given_up: it is not sent any more."
        },
    )
    tries = fields.Integer(required=True, metadata={"description": "Attempts to send it so far."})
    error = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "Why the last attempt failed, or why none is made now."},
    )
    next_try_at = Timestamp(required=True, allow_none=True, metadata={"description": "Null once it is settled."})
