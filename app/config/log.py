"""The log of every program of the service: its level, and its lines as text or as JSON objects.

A line of the log never contains a prompt, an answer or a key.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.config.observability import LogConfig

_OURS = ("app", "workers", "llama.cpp")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_log(config: LogConfig, *, libraries: int = logging.INFO) -> None:
    """Write the log to stderr, from a level on.

    Args:
        libraries: the least serious lines of libraries, at any level: at `debug` those of HTTP log whole requests.
    """
    # no line of ours has these, and each takes time in every line
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    level = logging.getLevelNamesMapping()[config.level.upper()]
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if config.format == "json" else TextFormatter(_TEXT))
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(max(level, libraries))
    for ours in _OURS:
        logging.getLogger(ours).setLevel(level)


class Event(logging.LogRecord):
    """A line with named values. It does not look for the place that logs it, which takes longer than the rest."""

    def __init__(self, name: str, level: int, message: str, fields: Mapping[str, object]) -> None:
        super().__init__(name, level, "", 0, message, None, None)
        self.fields = fields


def log_event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log a line with named values. Those that are None are left out."""
    if logger.isEnabledFor(level):
        present = {name: value for name, value in fields.items() if value is not None}
        logger.handle(Event(logger.name, level, message, present))


class TextFormatter(logging.Formatter):
    """Writes the values of an event behind its message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if not isinstance(record, Event):
            return line
        return " ".join([line, *(f"{name}={value}" for name, value in record.fields.items())])


class JSONFormatter(logging.Formatter):
    """Writes a line as an object: `time`, `level`, `logger`, `message`, the values of an event, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record, Event):
            line |= record.fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
