"""Paths of fields in a header of a response. They contain names that the client chose."""

from collections.abc import Iterable
from urllib.parse import quote

_MAX_PATHS, _MAX_CHARACTERS = 16, 200


def header_value(paths: Iterable[str]) -> str:
    """Return the paths as a list, percent-encoded where a name in them is not made of letters and digits; or ""."""
    shown = [quote(path[:_MAX_CHARACTERS], safe="$.-_", errors="backslashreplace") for path in paths]
    return ", ".join([*shown[:_MAX_PATHS], "..."] if len(shown) > _MAX_PATHS else shown)
