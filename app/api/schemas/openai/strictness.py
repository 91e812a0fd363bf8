"""`strict`: whether a schema may have keywords that no grammar holds."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError

from app.jobs.schema_support import supported

STRICT = (
    "true: reject a schema with keywords that no grammar holds (`uniqueItems: true`, say). Otherwise such keywords are "
    "not enforced, and the header `Unenforced-Keywords` names them."
)


def reject_unenforced(named: Mapping[str, Any], member: str) -> None:
    """Reject the schema under `member` if `named` is strict and the schema has keywords that no grammar holds.

    Raises:
        ValidationError: by the paths of these keywords.
    """
    if not named.get("strict"):
        return
    name = f" of {named['name']}" if "name" in named else ""
    reason = f"The output cannot be made to follow this keyword{name}: leave it out, or leave out strict."
    paths = supported(named.get(member)).unenforced
    if paths:
        raise ValidationError({f"{member}.{path}": [reason] for path in paths})
