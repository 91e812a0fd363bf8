"""The fields of the schemas, which accept JSON's types strictly.

marshmallow's own fields would read "0.7" as a number and "yes" as true.
"""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, validate

from app.api.schemas.request_schema import MAX_FAULTS, Unread

_SURROGATE = "contains half of a surrogate pair (\\ud800-\\udfff), which is not a character; send whole characters"
_NOT_JSON = "Must contain JSON only: no NaN, no infinite number, no value nested too deeply."


class IgnoredField(Unread, fields.Raw):
    """Any JSON value, which is not read."""

    def __init__(self, reason: str) -> None:
        super().__init__(metadata={"description": f"Ignored: {reason}"})


class TextField(fields.String):
    """A string of whole characters."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("Must be a string.")
        if not is_unicode(value):
            raise ValidationError(f"The text {_SURROGATE}.")
        return value


class WholeNumber(fields.Integer):
    """An integer as JSON Schema defines it: 5 and 5.0, neither "5" nor true."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if type(value) is not int:
            raise ValidationError("Must be a whole number.")
        return value


class TokenCount(WholeNumber):
    """A number of tokens, of at least `least`. A larger one than `most` counts as `most`.

    minus_one: what -1 counts as; None: it is refused.
    """

    def __init__(self, *, least: int, most: int, minus_one: int | None, metadata: dict[str, Any]) -> None:
        or_minus_one = {"anyOf": [{"minimum": least}, {"const": -1}]}
        super().__init__(metadata={**metadata, **({"minimum": least} if minus_one is None else or_minus_one)})
        self._least, self._most, self._minus_one = least, most, minus_one

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = super()._deserialize(value, attr, data, **kwargs)
        if number == -1 and self._minus_one is not None:
            return self._minus_one
        if number < self._least:
            unlimited = "" if self._minus_one is None else ", or -1 for no limit"
            raise ValidationError(f"Must be at least {self._least}{unlimited}.")
        return min(number, self._most)


class RealNumber(fields.Float):
    """A finite number; neither "0.7" nor true."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if type(value) not in (int, float):
            raise ValidationError("Must be a number.")
        return super()._deserialize(value, attr, data, **kwargs)


class Flag(fields.Boolean):
    """true or false; neither 1 nor "true"."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


class IgnoredFlag(Unread, Flag):
    """true or false, which changes nothing."""


class BoundedList(fields.List[Any]):
    """A list whose length is validated before its items are, of which no more than a few are reported."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValidationError("Must be a list.")
        for check in self.validators:
            check(value)
        items: list[Any] = []
        errors: dict[int, Any] = {}
        for index, item in enumerate(value):
            try:
                items.append(self.inner.deserialize(item, **kwargs))
            except ValidationError as error:
                errors[index] = error.messages
                if len(errors) == MAX_FAULTS:
                    break
        if errors:
            raise ValidationError(dict(errors))
        return items


class BoundedDict(fields.Dict):
    """An object whose size is validated before its members are."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[Any, Any]:
        if isinstance(value, dict):
            for check in self.validators:
                check(value)
        members: dict[Any, Any] = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        return members


class TextOrTexts(fields.Field[str | list[str]]):
    """A string, or a list of strings; each of 1 to `longest` characters, a list of `fewest` to `most`."""

    def __init__(self, *, longest: int | None = None, fewest: int = 0, most: int, **kwargs: Any) -> None:
        self._one = TextField(validate=validate.Length(min=1, max=longest))
        self._many = BoundedList(self._one, validate=validate.Length(min=fewest, max=most))
        text = {"type": "string", "minLength": 1} | ({} if longest is None else {"maxLength": longest})
        array = {"type": "array", "items": text, "minItems": fewest, "maxItems": most}
        null = [] if kwargs.get("required") else [{"type": "null"}]
        super().__init__(**{**kwargs, "metadata": {**kwargs.get("metadata", {}), "anyOf": [text, array, *null]}})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | list[str]:
        if isinstance(value, str):
            return self._one.deserialize(value, attr, data)
        if isinstance(value, list):
            return [text for text in self._many.deserialize(value, attr, data) if text is not None]
        raise ValidationError("Must be a string or a list of strings.")


class JsonValue(fields.Raw):
    """Any JSON value, at most `max_bytes` long when written down."""

    def __init__(self, *, max_bytes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._max_bytes = max_bytes

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        _check_json(value, self._max_bytes)
        return value


class JsonObject(fields.Dict):
    """An object of JSON values, at most `max_bytes` long when written down."""

    def __init__(self, *, max_bytes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._max_bytes = max_bytes

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("Must be an object.")
        _check_json(value, self._max_bytes)
        return value


class Timestamp(fields.DateTime):
    """Unix seconds, shown as RFC 3339 in UTC."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if value is None:
            return None
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def is_unicode(text: str) -> bool:
    """Return whether the text can be encoded: JSON's escapes can spell lone surrogates, UTF-8 cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def no_nul(text: str) -> None:
    """Validate a text that becomes a C string."""
    if "\0" in text:
        raise ValidationError("Must not contain the character NUL.")


def constant(*values: str) -> fields.String:
    """Return the field of a response that has one of `values`."""
    return fields.String(required=True, metadata={"enum": list(values)})


@contextlib.contextmanager
def errors_under(name: object) -> Iterator[None]:
    """Put the messages of a ValidationError under the name of the field that they are about."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError({str(name): error.messages}) from None


def one_of(*values: str) -> dict[str, Any]:
    """JSON Schema of a string among `values`."""
    return {"type": "string", "enum": list(values)}


def object_with(**properties: Any) -> dict[str, Any]:
    """JSON Schema of an object that must have `properties`."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _check_json(value: Any, max_bytes: int) -> None:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise ValidationError(_NOT_JSON) from error
    if not is_unicode(written):
        raise ValidationError(f"A text in it {_SURROGATE}.")
    if len(written.encode()) > max_bytes:
        raise ValidationError(f"Must not be longer than {max_bytes} bytes of JSON.")
