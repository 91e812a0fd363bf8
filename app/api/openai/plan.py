"""What a request of OpenAI's API becomes: the jobs that it makes, and the response or the stream made of them."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.api.event_stream import EventEncoder
from app.errors import InvalidRequest, PromptTooLong
from app.jobs.job import Job, JobRequest
from app.jobs.sampling import MAX_SEED

PromptFields = Callable[[int], Sequence[str]]
"""The fields that the prompt of the job with this index is made of, the longest first."""


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
        prompt_fields: for errors about a prompt, which is made of several fields or is one of several.
    """

    requests: Sequence[JobRequest]
    make_body: Callable[[Sequence[Job]], dict[str, Any]]
    make_encoder: Callable[[Sequence[Job]], EventEncoder] | None = None
    unenforced: Sequence[str] = ()
    field_names: Mapping[str, str]
    ignored: Sequence[str] = ()
    prompt_fields: PromptFields | None = None

    def renaming_fields(self) -> contextlib.AbstractContextManager[None]:
        """See `renaming_fields`."""
        return renaming_fields(self.field_names, self.prompt_fields)


@contextlib.contextmanager
def renaming_fields(names: Mapping[str, str], prompt_fields: PromptFields | None = None) -> Iterator[None]:
    """Give the errors that the worker found in fields the names that the client has used, in their texts too.

    names, prompt_fields: see `RequestPlan`.
    """
    try:
        yield
    except InvalidRequest as error:
        rename_fields(error, names, prompt_fields)
        raise


def rename_fields(error: InvalidRequest, names: Mapping[str, str], prompt_fields: PromptFields | None = None) -> None:
    """Rename in this error; see `renaming_fields`."""
    errors: dict[str, list[str]] = {}
    for path, texts in error.errors.items():
        fields = [_renamed(path, names)]
        is_length = path == "messages" and isinstance(error, PromptTooLong)
        if prompt_fields is not None and (path == "prompt" or is_length):
            fields = list(prompt_fields(error.job_index)) or fields
        shown = " and ".join(fields)
        errors[fields[0]] = [_with_name(text, path, shown) for text in texts]
        error.detail = _with_name(error.detail, path, shown)
    error.errors = errors


def longest_first(contents: Mapping[str, Any]) -> list[str]:
    """Return the names of what a prompt is made of, without what is empty. contents: JSON values by these names."""
    sizes = {name: len(json.dumps(content, default=str)) for name, content in contents.items() if content}
    return sorted(sizes, key=sizes.__getitem__, reverse=True)


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
