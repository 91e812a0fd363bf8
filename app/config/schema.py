"""How a key of the configuration is declared and validated.

`app.config.settings` annotates each field of its dataclasses with one of the fields below, which has what the key means
and what is expected of it; `schema_of` makes the schema of a dataclass. `app.config.loader` writes its messages from
`expected`, never from marshmallow's own messages, which may quote the value.
"""

import base64
import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.config.params import Params

Keys = dict[str, fields.Field[Any]]  # by dotted path

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how each begins
_SECRET_BYTES = range(24, 65)
_MOST = 1_000_000
_DEVICES = re.compile(r"[\w-]+(,[\w-]+)*")  # indices or UUIDs, as in CUDA_VISIBLE_DEVICES


def text(meaning: str, expected: str, *checks: Any, nullable: bool = False) -> fields.String:
    return fields.String(
        allow_none=nullable, validate=[validate.Length(min=1), *checks], metadata=_about(meaning, expected)
    )


def whole_number(meaning: str, least: int, most: int | None = None, *, nullable: bool = False) -> fields.Integer:
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    expected = f"a whole number {limits}" + (", or null" if nullable else "")
    return fields.Integer(
        strict=True, allow_none=nullable, validate=validate.Range(least, most), metadata=_about(meaning, expected)
    )


def number(meaning: str, least: float) -> fields.Float:
    return fields.Float(
        validate=validate.Range(least, _MOST), metadata=_about(meaning, f"a number from {least} to {_MOST}")
    )


def flag(meaning: str) -> fields.Boolean:
    return fields.Boolean(truthy={True}, falsy={False}, metadata=_about(meaning, "true or false"))


class Folder(fields.String):
    def __init__(self, meaning: str) -> None:
        super().__init__(metadata=_about(meaning, "the path of a folder"))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        folder = super()._deserialize(value, attr, data, **kwargs)
        if not folder:
            raise ValidationError("empty")
        return Path(folder).expanduser()


class FreeForm(fields.Dict):
    """A mapping whose keys depend on the model family, loaded as read-only `Params`."""

    def __init__(self, meaning: str, expected: str) -> None:
        super().__init__(keys=fields.String(), metadata=_about(meaning, expected))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return Params(super()._deserialize(value, attr, data, **kwargs))  # type: ignore[no-untyped-call]


class Aliases(FreeForm):
    """A mapping of texts to texts."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        aliases = super()._deserialize(value, attr, data, **kwargs)
        if not all(isinstance(target, str) for target in aliases.values()):
            raise ValidationError("wrong type")
        return aliases


class Texts(fields.List[str]):
    """A list of texts, loaded as a tuple."""

    def __init__(
        self, meaning: str, expected: str = "a list of texts (quote a key that looks like a number)", *checks: Any
    ) -> None:
        one = fields.String(validate=[validate.Length(min=1), *checks])
        super().__init__(one, metadata=_about(meaning, expected))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return tuple(super()._deserialize(value, attr, data, **kwargs))


class AutoField(fields.Field[Any]):
    """A field that accepts `auto`, which is loaded as None."""

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        return super().deserialize(None if value == "auto" else value, attr, data, **kwargs)


class AutoNumber(AutoField, fields.Integer):
    def __init__(self, meaning: str, least: int, most: int) -> None:
        about = _about(meaning, f"auto or a whole number from {least} to {most}")
        super().__init__(strict=True, allow_none=True, validate=validate.Range(least, most), metadata=about)


class Devices(AutoField):
    """0, [0, 1] and "0,1" are loaded as "0", "0,1" and "0,1"."""

    def __init__(self, meaning: str) -> None:
        super().__init__(allow_none=True, metadata=_about(meaning, "auto, or devices such as 0 or 0,1"))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int | str) and not isinstance(item, bool) for item in items):
            raise ValidationError("wrong type")
        devices = ",".join(str(item).replace(" ", "") for item in items)
        if not _DEVICES.fullmatch(devices) or devices.startswith("-"):
            raise ValidationError("no list of devices")
        return devices


def signing_secret(value: str) -> None:
    """Check a secret as the Standard Webhooks specification defines it: 24 to 64 random bytes."""
    try:
        size = len(base64.b64decode(value.removeprefix(_SECRET_PREFIX), validate=True))
    except ValueError:
        size = 0
    if not (value.startswith(_SECRET_PREFIX) and size in _SECRET_BYTES):
        raise ValidationError("no secret")


class _Section(Schema):
    """Loads a mapping as the dataclass that it was made of."""

    made_of: type

    @post_load
    def _make(self, values: dict[str, Any], **_context: Any) -> Any:
        return self.made_of(**values)


def schema_of(settings: type, *, base: type[Schema] = Schema) -> type[Schema]:
    """Return the schema of a dataclass whose fields are annotated with the field that validates them.

    A field whose type is a dataclass itself becomes a section, which is loaded as that dataclass.
    """
    made: dict[str, Any] = {}
    for name, hint in get_type_hints(settings, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            made[name] = fields.Nested(schema_of(hint, base=_Section))  # type: ignore[arg-type]
        else:
            made[name] = get_args(hint)[-1]
    schema = base.from_dict(made, name=f"{settings.__name__}Schema")
    schema.made_of = settings  # type: ignore[attr-defined]
    return schema


def section(field: object) -> Schema | None:
    """Return the schema of a section, None for any other field."""
    return field.schema if isinstance(field, fields.Nested) else None


def known_keys(schema: Schema, prefix: str = "") -> Keys:
    """Return the field of every key by its dotted path, sections before their keys."""
    keys: Keys = {}
    for name, field in schema.fields.items():
        keys[prefix + name] = field
        nested = section(field)
        if nested:
            keys |= known_keys(nested, f"{prefix}{name}.")
    return keys


def _about(meaning: str, expected: str) -> dict[str, str]:
    return {"description": meaning, "expected": expected}
