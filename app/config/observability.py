"""The keys of the configuration about what an operator sees: logs, metrics and traces."""

from dataclasses import dataclass
from typing import Annotated

from marshmallow import validate

from app.config.schema import flag, text

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    format: Annotated[
        str,
        text(
            "How API and workers write a line of the log: as text, or as one JSON object.",
            "text or json",
            validate.OneOf(LOG_FORMATS),
        ),
    ] = "text"
    level: Annotated[
        str,
        text(
            "The least serious lines that API and workers log. `debug` adds lines of this project only: those of "
            "libraries may contain prompts.",
            ", ".join(LOG_LEVELS[:-1]) + f" or {LOG_LEVELS[-1]}",
            validate.OneOf(LOG_LEVELS),
        ),
    ] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    open: Annotated[
        bool,
        flag(
            "Let everybody who reaches the API read `/metrics`. false: where there are API keys, one with the scope "
            "`admin`."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesConfig:
    endpoint: Annotated[
        str | None,
        text(
            "Where traces are sent, by OTLP over HTTP: `http://collector:4318/v1/traces`. It needs the extra `otel`. "
            "null: no traces.",
            "http://… or https://…, or null",
            validate.Regexp(r"^https?://."),
            nullable=True,
        ),
    ] = None
