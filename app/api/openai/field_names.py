"""What the worker finds wrong is said in the names that the client has used."""

import contextlib
from collections.abc import Iterator, Mapping

from app.errors import InvalidRequest


@contextlib.contextmanager
def fields_called(names: Mapping[str, str]) -> Iterator[None]:
    """names: beginnings of field paths, and what they are called in this request."""
    try:
        yield
    except InvalidRequest as error:
        error.errors = {_called(path, names): messages for path, messages in error.errors.items()}
        raise


def _called(path: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if path.startswith(old):
            return new + path.removeprefix(old)
    return path
