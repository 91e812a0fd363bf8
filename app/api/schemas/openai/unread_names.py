"""Names of OpenAI's API that change nothing here, are not supported, or belong to another endpoint.

Those of other servers: `peers`.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields

from app.api.schemas.fields import IgnoredField
from app.api.schemas.request_schema import Unread

IGNORED = {
    "safety_identifier": "Users are not distinguished.",
    "metadata": "It is not stored.",
    "service_tier": "There is one tier; see `priority`.",
    "prompt_cache_key": "Prompts with the same beginning share it automatically.",
    "prompt_cache_options": "Prompts with the same beginning share it automatically.",
    "prompt_cache_retention": "Prompts with the same beginning share it automatically.",
    "prediction": "It could only make the output faster.",
    "client_metadata": "It is not stored.",
    "verbosity": "Ask for it in a message.",
}

IGNORED_EVERYWHERE = (
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)
IGNORED_IN_TEXTS = ("metadata", "prediction", "verbosity")
OF_RESPONSES: Mapping[str, str] = dict.fromkeys(
    (
        "background",
        "context_management",
        "conversation",
        "include",
        "max_tool_calls",
        "previous_response_id",
        "text",
        "truncation",
    ),
    "/v1/responses",
)
"""Names that only responses have, and where they belong."""


def ignored(*names: str) -> dict[str, fields.Field[Any]]:
    """Return fields for names of OpenAI's API that are accepted and not read."""
    return {name: IgnoredField(IGNORED[name]) for name in names}


def rejected(reasons: Mapping[str, str]) -> dict[str, fields.Field[Any]]:
    """Return fields for names of OpenAI's API that are not supported; null is accepted."""
    return {name: _Refused(reason) for name, reason in reasons.items()}


class _Refused(Unread, fields.Field[None]):
    def __init__(self, reason: str) -> None:
        super().__init__(metadata={"enum": [None], "description": f"Not supported: {reason}."})
        self._reason = reason

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> None:
        raise ValidationError(f"{self.name} is not supported: {self._reason}.")
