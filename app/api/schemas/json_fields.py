"""Fields that take JSON's types as they are: marshmallow's own would read "0.7" as a number and "yes" as true."""

import json
from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError, fields, validate

_NO_CHARACTERS = "holds half of a surrogate pair (\\ud800-\\udfff), which is no character; send whole characters"
_NO_JSON = "Must hold JSON only: no NaN, no infinite number, no value nested beyond reason."


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: JSON's escapes can spell lone surrogates, UTF-8 cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Text(fields.String):
    """A string of whole characters."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("Must be a string.")
        if not is_unicode(value):
            raise ValidationError(f"The text {_NO_CHARACTERS}.")
        return value


class WholeNumber(fields.Integer):
    """An integer as JSON Schema knows it: 5 and 5.0, neither "5" nor true."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if type(value) is not int:
            raise ValidationError("Must be a whole number.")
        return value


class RealNumber(fields.Float):
    """A finite number; neither "0.7" nor true."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if type(value) not in (int, float):
            raise ValidationError("Must be a number.")
        return super()._deserialize(value, attr, data, **kwargs)


class Flag(fields.Boolean):
    """true or false, nothing that merely looks like it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


class TextOrTexts(fields.Field[str | list[str]]):
    """A string, or a list of strings; each of `shortest` to `longest` characters, a list of `fewest` to `most`."""

    def __init__(self, *, shortest: int = 1, longest: int | None, fewest: int = 0, most: int, **kwargs: Any) -> None:
        self._one = Text(validate=validate.Length(min=shortest, max=longest))
        self._many = fields.List(self._one, validate=validate.Length(min=fewest, max=most))
        text = {"type": "string", "minLength": shortest} | ({} if longest is None else {"maxLength": longest})
        array = {"type": "array", "items": text, "minItems": fewest, "maxItems": most}
        nothing: Sequence[dict[str, Any]] = [{"type": "null"}] if kwargs.get("allow_none") else []
        super().__init__(**{**kwargs, "metadata": {**kwargs.get("metadata", {}), "anyOf": [text, array, *nothing]}})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | list[str]:
        if isinstance(value, str):
            return self._one.deserialize(value, attr, data)
        if isinstance(value, list):
            return [text for text in self._many.deserialize(value, attr, data) if text is not None]
        raise ValidationError("Must be a string or a list of strings.")


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


class JsonValue(fields.Raw):
    """Any JSON value, at most `max_bytes` long when written down."""

    def __init__(self, *, max_bytes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._max_bytes = max_bytes

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        _check_json(value, self._max_bytes)
        return value


def _check_json(value: Any, max_bytes: int) -> None:
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise ValidationError(_NO_JSON) from error
    if not is_unicode(written):
        raise ValidationError(f"A text in it {_NO_CHARACTERS}.")
    if len(written.encode()) > max_bytes:
        raise ValidationError(f"Must not be longer than {max_bytes} bytes of JSON.")


def no_nul(text: str) -> None:
    """For texts that end up in C strings."""
    if "\0" in text:
        raise ValidationError("Must not hold the character NUL.")
