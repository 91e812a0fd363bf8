"""What a check of the machine, the configuration or the running service found: `llm-api doctor` prints it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # the service works, worse than it could
    FAULT = "fault"  # the service does not work, or will not start

    @property
    def rank(self) -> int:
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """check: what was looked at, one word. text: what is so. cure: what to do, where `text` does not say it already."""

    check: str
    level: Level
    text: str
    cure: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, cure: str = "") -> Finding:
    return Finding(check, Level.WARNING, text, cure)


def fault(check: str, text: str, cure: str = "") -> Finding:
    return Finding(check, Level.FAULT, text, cure)
