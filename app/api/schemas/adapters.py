"""`lora`: the LoRA adapters of a request, by name or as llama-server has them."""

from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.fields import RealNumber, TextField, WholeNumber, errors_under
from app.config.adapters import MOST_SCALE

MAX_ADAPTERS = 8  # of one request: each is computed beside the others
_SHAPE = 'Must be the name of an adapter, or a list such as [{"id": "name", "scale": 1.0}].'
_ID = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}]}
_SCALE = {"type": ["number", "null"], "minimum": -MOST_SCALE, "maximum": MOST_SCALE}


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """id: a name, or the position in the list of adapters. scale: None: the adapter's own."""

    id: str | int
    scale: float | None = None


class LoraField(fields.Field[tuple[AdapterChoice, ...]]):
    """Loaded as a tuple; empty text and empty list choose nothing."""

    def __init__(self) -> None:
        one = {"type": "object", "properties": {"id": _ID, "scale": _SCALE}, "required": ["id"]}
        many = {"type": "array", "items": one | {"additionalProperties": False}, "maxItems": MAX_ADAPTERS}
        super().__init__(
            metadata={
                "anyOf": [{"type": "string"}, many, {"type": "null"}],
                "description": "The LoRA adapter to use, by its name; or, as in llama-server, a list of adapters, each "
                "with its name (or its position in `/v1/models`) and its scale.",
            }
        )
        self._scale = RealNumber(validate=validate.Range(-MOST_SCALE, MOST_SCALE), allow_none=True)
        self._position = WholeNumber(validate=validate.Range(min=0))
        self._name = TextField(validate=validate.Length(min=1))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[AdapterChoice, ...]:
        if isinstance(value, str):
            return (AdapterChoice(self._name.deserialize(value)),) if value else ()
        if not isinstance(value, list):
            raise ValidationError(_SHAPE)
        if len(value) > MAX_ADAPTERS:
            raise ValidationError(f"Must not have more than {MAX_ADAPTERS} items.")
        choices = []
        for index, item in enumerate(value):
            with errors_under(index):
                choices.append(self._choice(item))
        return tuple(choices)

    def _choice(self, item: Any) -> AdapterChoice:
        if not isinstance(item, dict) or "id" not in item or item.keys() - {"id", "scale"}:
            raise ValidationError(_SHAPE)
        with errors_under("id"):
            known = self._name if isinstance(item["id"], str) else self._position
            chosen: str | int = known.deserialize(item["id"])  # type: ignore[assignment]
        with errors_under("scale"):
            scale = self._scale.deserialize(item.get("scale"))
        return AdapterChoice(chosen, scale)
