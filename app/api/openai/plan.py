"""What a request of OpenAI's API comes to: the jobs that it makes, and the answer that their outcomes make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.jobs.job import Job, JobRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPlan:
    """Of one request, whether it is answered at once or in a batch.

    requests: of its jobs. answer: made of these jobs, in their order, once all have succeeded; raises InvalidRequest.
    field_names: what the worker's names of fields are called in this request (`fields_called`).
    """

    requests: Sequence[JobRequest]
    answer: Callable[[list[Job]], dict[str, Any]]
    field_names: Mapping[str, str]
