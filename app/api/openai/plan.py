"""What a request of OpenAI's API becomes: the jobs that it makes, and the response or the stream made of them."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.api.event_stream import EventEncoder
from app.errors import InvalidRequest
from app.jobs.job import Job, JobRequest
from app.jobs.sampling import MAX_SEED


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """The plan of one request, which may be a line of a batch.

    Args:
        requests: of its jobs.
        make_body: makes the response body of these jobs, in their order, once all have succeeded. Raises
            InvalidRequest.
        make_encoder: for a request that asks for a stream; else None.
        unenforced: paths of keywords in its JSON Schemas that the output does not have to follow.
        field_names: beginnings of field paths as the worker knows them, and their names in this request. The longest
            that matches counts.
        ignored: the paths of fields that change nothing, though the client may expect it.
    """

    requests: Sequence[JobRequest]
    make_body: Callable[[Sequence[Job]], dict[str, Any]]
    make_encoder: Callable[[Sequence[Job]], EventEncoder] | None = None
    unenforced: Sequence[str] = ()
    field_names: Mapping[str, str]
    ignored: Sequence[str] = ()

    def renaming_fields(self) -> contextlib.AbstractContextManager[None]:
        """See `renaming_fields`."""
        return renaming_fields(self.field_names)


@contextlib.contextmanager
def renaming_fields(names: Mapping[str, str]) -> Iterator[None]:
    """Give the errors that the worker found in fields the names that the client has used, in their texts too.

    names: see `RequestPlan.field_names`.
    """
    try:
        yield
    except InvalidRequest as error:
        renamed = {path: _renamed(path, names) for path in error.errors}
        for old, new in renamed.items():
            error.detail = _with_name(error.detail, old, new)
        error.errors = {
            renamed[path]: [_with_name(text, path, renamed[path]) for text in texts]
            for path, texts in error.errors.items()
        }
        raise


def _with_name(text: str, old: str, new: str) -> str:
    """Return a message with another name of its field. A field has no article: "the prompt" is not a name."""
    return re.sub(rf"(?<!\bthe )(?<![\w.]){re.escape(old)}(?!\w)", lambda _: new, text)


def _renamed(path: str, names: Mapping[str, str]) -> str:
    for old, new in sorted(names.items(), key=lambda name: len(name[0]), reverse=True):
        if path == old or path.startswith(old if old.endswith(".") else f"{old}."):
            return new + path.removeprefix(old)
    return path


def copies(request: JobRequest, count: int) -> list[JobRequest]:
    """Return the request `count` times. A seed is increased for each copy, or all outputs would be the same."""
    seed = request.params.get("seed")
    if seed is None:
        return [request] * count
    seeds = [(seed + index) % (MAX_SEED + 1) for index in range(count)]
    return [replace(request, params={**request.params, "seed": each}) for each in seeds]
