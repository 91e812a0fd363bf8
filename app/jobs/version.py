"""Which version of the project a process runs: API and workers share records and scripts, so theirs must be equal."""

import hashlib
from functools import cache
from pathlib import Path

from app import VERSION

_DIGITS = 8


@cache
def service_version() -> str:
    """Return the version and a digest of what API and workers share, as `0.1.0+1f0e3dad`."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for file in sorted([*folder.glob("*.py"), *folder.glob("lua/*.lua")]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{VERSION}+{digest.hexdigest()[:_DIGITS]}"
