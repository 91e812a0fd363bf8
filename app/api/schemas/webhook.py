"""`webhook` of a request: who is told of the job's end."""

import re
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, post_load, validate

from app.api.schemas.json_fields import Text
from app.api.schemas.strict import StrictSchema
from app.jobs.job import JOB_EVENTS, Webhook

MAX_URL_LENGTH = 2048
_PRINTABLE = re.compile(r"[!-~]+")  # nothing that could end a line of the request it is written into


def _sendable(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not _PRINTABLE.fullmatch(url):
        raise ValidationError("Must be an http or https URL in ASCII.")
    if parts.username is not None or parts.password is not None:
        raise ValidationError("Must hold no user or password: webhooks are signed.")
    if "#" in url:
        raise ValidationError("Must have no fragment.")


class WebhookSchema(StrictSchema):
    url = Text(
        required=True,
        validate=(validate.Length(max=MAX_URL_LENGTH), _sendable),
        metadata={"description": "Gets a POST, signed as Standard Webhooks has it.", "pattern": "^https?://[!-~]+$"},
    )
    events = fields.List(
        Text(validate=validate.OneOf(JOB_EVENTS)),
        allow_none=True,
        validate=validate.Length(min=1),
        metadata={"description": "Ends to tell of. Default: all."},
    )

    @post_load
    def _webhook(self, data: dict[str, Any], **kwargs: Any) -> Webhook:
        events = data.get("events")
        return (
            Webhook(url=data["url"])
            if events is None
            else Webhook(url=data["url"], events=tuple(dict.fromkeys(events)))
        )
