"""The one schema of the configuration. Defaults are not here: they stand in `app.config.settings`.

Every field says in `metadata["expected"]` what it wants; `app.config.loader` writes its messages from that and
never from marshmallow's, which may quote the value.
"""

import base64
import re
from pathlib import Path
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.config.params import Params
from app.config.settings import (
    AuthConfig,
    CacheConfig,
    FilesConfig,
    JobsConfig,
    ServerConfig,
    WebhooksConfig,
    WorkerConfig,
)

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how each begins
_SECRET_BYTES = range(24, 65)
_MIN_THREADS = 4  # waiters are capped below the thread count, so that /healthz always finds a free one
_DEVICES = re.compile(r"[\w-]+(,[\w-]+)*")  # indices or UUIDs, as CUDA_VISIBLE_DEVICES takes them


def _text(expected: str, *checks: Any, nullable: bool = False) -> fields.String:
    return fields.String(
        allow_none=nullable, validate=[validate.Length(min=1), *checks], metadata={"expected": expected}
    )


def _count(least: int, most: int | None = None) -> fields.Integer:
    limits = f"from {least} to {most}" if most else f"of at least {least}"
    return fields.Integer(
        strict=True, validate=validate.Range(least, most), metadata={"expected": f"a whole number {limits}"}
    )


class _Folder(fields.String):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not text:
            raise ValidationError("empty")
        return Path(text).expanduser()


class _Slots(fields.Integer):
    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        return super().deserialize(None if value == "auto" else value, attr, data, **kwargs)


class _Devices(fields.Field[str | None]):
    """`auto` -> None; 0, [0, 1] and "0,1" -> "0", "0,1", "0,1"."""

    def deserialize(self, value: Any, attr: str | None = None, data: Any = None, **kwargs: Any) -> Any:
        return super().deserialize(None if value == "auto" else value, attr, data, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int | str) and not isinstance(item, bool) for item in items):
            raise ValidationError("wrong type")
        text = ",".join(str(item).replace(" ", "") for item in items)
        if not _DEVICES.fullmatch(text) or text.startswith("-"):
            raise ValidationError("no list of devices")
        return text


class _FreeForm(fields.Dict):
    def __init__(self, expected: str) -> None:
        super().__init__(keys=fields.String(), metadata={"expected": expected})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return Params(super()._deserialize(value, attr, data, **kwargs))  # type: ignore[no-untyped-call]


class _Section(Schema):
    makes: ClassVar[type]

    @post_load
    def _make(self, values: dict[str, Any], **_context: Any) -> Any:
        return self.makes(**values)


class ServerSchema(_Section):
    makes = ServerConfig
    host = _text("an address to listen on, such as 0.0.0.0 or 127.0.0.1")
    port = _count(1, 65_535)
    processes = _count(1, 1024)
    threads = _count(_MIN_THREADS, 65_536)
    max_body_bytes = _count(1024)


class WorkerSchema(_Section):
    makes = WorkerConfig
    slots = _Slots(
        strict=True,
        allow_none=True,
        validate=validate.Range(1, 1024),
        metadata={"expected": "auto or a whole number from 1 to 1024"},
    )
    drain_seconds = _count(0)
    speculation = fields.Boolean(truthy={True}, falsy={False}, metadata={"expected": "true or false"})
    nice = fields.Integer(
        strict=True, validate=validate.Range(0, 19), metadata={"expected": "a whole number from 0 to 19"}
    )
    gpus = _Devices(allow_none=True, metadata={"expected": "auto, or devices such as 0 or 0,1"})


class JobsSchema(_Section):
    makes = JobsConfig
    ttl = _count(1)
    timeout = _count(1)
    max_attempts = _count(1)
    max_queued = _count(1)


class CacheSchema(_Section):
    makes = CacheConfig
    ttl = _count(0)
    across_keys = fields.Boolean(truthy={True}, falsy={False}, metadata={"expected": "true or false"})


class FilesSchema(_Section):
    makes = FilesConfig
    max_bytes = _count(1024)
    ttl = _count(1)


class AuthSchema(_Section):
    makes = AuthConfig
    api_keys = fields.List(_text(""), metadata={"expected": "a list of texts (quote a key that looks like a number)"})

    @post_load
    def _make(self, values: dict[str, Any], **_context: Any) -> AuthConfig:
        return AuthConfig(**{name: tuple(keys) for name, keys in values.items()})


def _secret(text: str) -> None:
    """As the Standard Webhooks specification has it: 24 to 64 random bytes."""
    try:
        size = len(base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True))
    except ValueError:
        size = 0
    if not (text.startswith(_SECRET_PREFIX) and size in _SECRET_BYTES):
        raise ValidationError("no secret")


class WebhooksSchema(_Section):
    makes = WebhooksConfig
    secret = _text("whsec_ and the base64 of 24 to 64 random bytes, or null", _secret, nullable=True)
    allow_private = fields.Boolean(truthy={True}, falsy={False}, metadata={"expected": "true or false"})


class ConfigSchema(Schema):
    models_dir = _Folder(metadata={"expected": "the path of a folder"})
    model_family = _text(
        "llama, huggingface, openai, gptq_llama or package.module:Engine",
        validate.Regexp(r"^(\w+|\w+(\.\w+)*:\w+(\.\w+)*)$"),
    )
    model_name = _text("a text, or null to derive it from setup_params", nullable=True)
    setup_params = _FreeForm("a mapping with texts as keys: repo_id + filename, or path, or package + filename")
    model_params = _FreeForm("a mapping of parameter names (texts) to values")
    data_dir = _Folder(metadata={"expected": "the path of a folder"})
    redis_url = _text(
        "redis://…, rediss://… or unix://…, or null for an embedded Valkey",
        validate.Regexp(r"^(rediss?|unix)://."),
        nullable=True,
    )
    server = fields.Nested(ServerSchema)
    worker = fields.Nested(WorkerSchema)
    jobs = fields.Nested(JobsSchema)
    cache = fields.Nested(CacheSchema)
    files = fields.Nested(FilesSchema)
    auth = fields.Nested(AuthSchema)
    webhooks = fields.Nested(WebhooksSchema)


def section(field: object) -> Schema | None:
    """The schema of a nested section, None for any other field."""
    return field.schema if isinstance(field, fields.Nested) else None


def known_keys(schema: Schema, prefix: str = "") -> list[str]:
    """Every key as a dotted path, sections before what they hold."""
    keys: list[str] = []
    for name, field in schema.fields.items():
        nested = section(field)
        keys += [prefix + name, *(known_keys(nested, f"{prefix}{name}.") if nested else [])]
    return keys
