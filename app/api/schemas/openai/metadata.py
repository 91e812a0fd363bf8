"""`metadata`: what a client wants to find beside an object of its own."""

from marshmallow import fields, validate

from app.api.schemas.json_fields import Text

MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # as OpenAI's API has it


class Metadata(fields.Dict):
    """At most 16 texts, by names."""

    def __init__(self) -> None:
        super().__init__(
            keys=Text(validate=validate.Length(max=MAX_KEY)),
            values=Text(validate=validate.Length(max=MAX_VALUE)),
            allow_none=True,
            validate=validate.Length(max=MAX_PAIRS, error=f"Must not hold more than {MAX_PAIRS}."),
            metadata={"maxProperties": MAX_PAIRS},
        )


def shown_metadata() -> fields.Dict:
    """The same in an answer."""
    return fields.Dict(keys=fields.String(), values=fields.String(), required=True, allow_none=True)
