"""The base of every schema of a request: nulls, unknown names and what to say about them."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, missing

from app.config.nearest_name import nearest_name

MAX_FAULTS = 16  # of one object or list that get a message of their own: as many as an error document has
_LISTED_NAMES = 12  # known names in the message about an unknown one, where none is similar


class Unread:
    """Marks a field that is accepted and not read, or refused with any value that means something: no hint names it."""


class RequestSchema(Schema):
    """A request body or a part of one.

    An optional field may be null, which means the same as leaving it out. An unknown name is rejected, with the most
    similar known name. `also`, where a schema has it, is JSON Schema for what its fields cannot express: for the
    documentation only (`app.api.openapi`).

    Attributes:
        elsewhere: names of other endpoints, and where each belongs.
        twins: names of other servers that are spelled otherwise, and the known name with the same meaning.
        example: of a whole body: `/docs` fills it in, and the error for a body that is no JSON shows it. It works on
            the default model.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}
    example: ClassVar[Mapping[str, Any]] = {}
    twins: ClassVar[Mapping[str, str]] = {"guided_decoding": "structured_outputs"}

    class Meta:
        unknown = RAISE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.allow_none = not field_obj.required

    def load(self, data: Any, **options: Any) -> Any:
        """Load as marshmallow does, without the nulls, and without a look at optional fields that are missing.

        Of unknown names only the first few are rejected: finding the name that is most like one takes 0.3 ms.
        """
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if value is not None or name not in self._optional}
            for name in [name for name in data if name not in self._known][MAX_FAULTS:]:
                del data[name]
        return super().load(data, **{**options, "partial": self._optional})

    def without_unknown(self, data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the data without the names that `load` would reject, at any depth, and the paths of these names."""
        known: dict[str, Any] = {}
        dropped: list[str] = []
        for name, value in data.items():
            field = self.load_fields.get(name)
            schema = field.schema if isinstance(field, fields.Nested) else None
            if field is None and self.unknown == RAISE:
                dropped.append(name)
            elif isinstance(schema, RequestSchema) and isinstance(value, Mapping):
                known[name], inner = schema.without_unknown(value)
                dropped += [f"{name}.{one}" for one in inner]
            else:
                known[name] = value
        return known, dropped

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(name if field.data_key is None else field.data_key for name, field in self.load_fields.items())

    @functools.cached_property
    def _optional(self) -> frozenset[str]:
        every = self.load_fields.items()
        return frozenset(name for name, field in every if not field.required and field.load_default is missing)

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:
        """Replace marshmallow's "Unknown field." by a message that names the similar or the known parameters."""
        if isinstance(error.messages, dict) and isinstance(data, Mapping):
            for name in error.messages:
                if name in data and name not in self._known:
                    error.messages[name] = [self._unknown(str(name))]

    def nearest(self, name: str) -> str | None:
        """Return the known name that a client may have meant, None where that one is refused or not read."""
        near = self.twins[name] if self.twins.get(name) in self._known else nearest_name(name, self._known)
        return None if near is not None and isinstance(self.load_fields.get(near), Unread) else near

    @functools.cached_property
    def _read(self) -> list[str]:
        return [name for name, field in self.load_fields.items() if not isinstance(field, Unread)]

    def _unknown(self, name: str) -> str:
        if name in self.elsewhere:
            return f"Unknown parameter. It belongs to {self.elsewhere[name]}."
        near = self.nearest(name)
        if near is not None:
            return f"Unknown parameter. Did you mean {near!r}?"
        names = sorted(self._read, key=lambda known: not self.load_fields[known].required)
        more = f" and {len(names) - _LISTED_NAMES} more, see /docs" if len(names) > _LISTED_NAMES else ""
        return f"Unknown parameter. Known parameters: {', '.join(names[:_LISTED_NAMES])}{more}."


class HistorySchema(RequestSchema):
    """A part of a request that describes the past or what a client offers: messages, items, calls, tools.

    Other servers and clients add members to what they have received before they send it back, so unknown members are
    ignored.
    """

    class Meta(RequestSchema.Meta):
        unknown = EXCLUDE
