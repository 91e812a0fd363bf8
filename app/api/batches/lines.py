"""A line of a batch: the jobs that it makes, and the line with its result."""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from marshmallow import ValidationError

from app.api import ignored_fields
from app.api.batches.batch import Batch, LineResult
from app.api.batches.input import read_line
from app.api.job_ends import raise_unless_succeeded
from app.api.job_service import JobService
from app.api.json_response import write_json
from app.api.openai import chat, completions, embeddings, responses, unenforced
from app.api.openai.plan import RequestPlan
from app.api.path_header import header_value
from app.api.problems import openai_error, openai_status
from app.api.request_parser import invalid_request
from app.api.schemas.openai.chat import ChatSchema
from app.api.schemas.openai.completions import CompletionSchema
from app.api.schemas.openai.embeddings import EmbeddingSchema
from app.api.schemas.openai.responses import ResponseSchema
from app.api.schemas.request_schema import RequestSchema
from app.errors import BodyTooLarge, LLMAPIError
from app.jobs.job import Job, JobRequest, Priority
from app.jobs.limits import with_max_tokens
from app.jobs.principal import Principal

_ENDINGS = {
    "cancelled": ("batch_cancelled", "this request was not answered before its batch was cancelled"),
    "failed": (
        "storage_full",
        "this request was not answered: your files hold as many bytes as files.max_bytes_per_owner allows; delete some",
    ),
    "expired": ("batch_expired", "this request was not answered within the completion window"),
}
ENDPOINTS: Mapping[str, tuple[RequestSchema, Callable[[Any, JobService, Principal], RequestPlan]]] = {
    "/v1/chat/completions": (ChatSchema(), chat.plan),
    "/v1/completions": (CompletionSchema(), completions.plan),
    "/v1/embeddings": (EmbeddingSchema(), embeddings.plan),
    "/v1/responses": (ResponseSchema(), responses.plan),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a batch.

    Args:
        number: 0 = the first of its file.
        principal: of its jobs: its batch's, with its own label.
        plan: None where there is a `rejection`, and for a line that its batch gives up.
        job_ids: of its jobs. They follow from the batch and the line, so that no process makes a job twice.
    """

    number: int
    custom_id: str
    principal: Principal
    plan: RequestPlan | None
    rejection: LLMAPIError | None
    job_ids: Sequence[str]

    @property
    def requests(self) -> list[JobRequest]:
        """The requests of its jobs, at low priority; the jobs are kept until the batch has their results."""
        planned = () if self.plan is None else self.plan.requests
        return [
            replace(one, priority=Priority.LOW, ttl_seconds=None, expires_in_seconds=None, stream=False, stored=True)
            for one in planned
        ]

    def result(self, jobs: Sequence[Job]) -> LineResult:
        """Return its result. jobs: all final; a line that was rejected has none."""
        failure: LLMAPIError | None = None
        try:
            if self.rejection is not None:
                raise self.rejection
            assert self.plan is not None, "a line is rejected, or has a plan"
            with self.plan.renaming_fields():
                for index, job in enumerate(jobs):
                    raise_unless_succeeded(job.status, job.error, index)
                status, body = 200, self.plan.make_body(jobs)
        except Exception as error:
            failure = error if isinstance(error, LLMAPIError) else _fault_of_ours(error, self.custom_id)
            status, body = openai_status(failure), openai_error(failure)
        response: dict[str, Any] = {"status_code": status, "request_id": f"req_{self._id}", "body": body}
        if headers := self._headers():
            response["headers"] = headers
        text = self._text(response=response, error=None)
        return LineResult(self.number, text, failure is not None, _tokens(body.get("usage") or {}))

    def _headers(self) -> dict[str, str]:
        """Return the headers that the response to a request of its own would have about its fields."""
        if self.plan is None:
            return {}
        paths = {unenforced.HEADER: self.plan.unenforced, ignored_fields.HEADER: self.plan.ignored}
        return {name: header_value(named) for name, named in paths.items() if named}

    def given_up(self, ending: str) -> LineResult:
        """Return the reason why the batch has not submitted this line."""
        code, message = _ENDINGS[ending]
        text = self._text(response=None, error={"code": code, "message": message})
        return LineResult(self.number, text, has_failed=True)

    def _text(self, **members: Any) -> str:
        return write_json({"id": f"batch_req_{self._id}", "custom_id": self.custom_id, **members}) + "\n"

    @property
    def _id(self) -> str:
        return self.job_ids[0].replace("-", "")


def line_of(batch: Batch, number: int, text: str, jobs: JobService) -> Line:
    """Validate a line as a request of its own would be. Raises `redis.RedisError`: the line is as before."""
    plan, rejection, value, principal = None, None, read_line(text), batch.principal
    try:
        plan, user = _plan(value, len(text.encode()), batch, jobs)
        principal = principal.with_label(user)
    except redis.RedisError:
        raise
    except Exception as error:
        rejection = error if isinstance(error, LLMAPIError) else _fault_of_ours(error, value["custom_id"])
    count = 1 if plan is None else len(plan.requests)
    ids = [_job_id(batch.id, number, choice) for choice in range(count)]
    return Line(
        number=number,
        custom_id=value["custom_id"],
        principal=principal,
        plan=plan,
        rejection=rejection,
        job_ids=ids,
    )


def unasked_line(batch: Batch, number: int, text: str) -> Line:
    """Return a line that its batch gives up; its request is not parsed."""
    return Line(
        number=number,
        custom_id=read_line(text)["custom_id"],
        principal=batch.principal,
        plan=None,
        rejection=None,
        job_ids=[_job_id(batch.id, number, 0)],
    )


def _plan(value: Mapping[str, Any], size: int, batch: Batch, jobs: JobService) -> tuple[RequestPlan, str | None]:
    """Return the plan of a line, and the `user` of its body. Raises LLMAPIError."""
    if value.get("method") != "POST":
        raise invalid_request({"method": ["Must be POST."]})
    if value.get("url") != batch.endpoint:
        raise invalid_request({"url": [f"Must be the endpoint of the batch, {batch.endpoint}."]})
    if not isinstance(value.get("body"), dict):
        raise invalid_request({"body": ["Must be an object: the request."]})
    if size > jobs.config.server.max_body_bytes:
        raise BodyTooLarge("the line is longer than server.max_body_bytes allows; send less")
    schema, plan = ENDPOINTS[batch.endpoint]
    sent, ignored = value["body"], list[str]()
    if jobs.config.openai.unknown_fields == "ignore":
        sent, ignored = schema.without_unknown(sent)
    try:
        body = schema.load(sent)
    except ValidationError as error:
        raise invalid_request(error.messages_dict) from None
    for name in ("stream", "background"):
        if getattr(body, name, False):
            raise invalid_request({name: ["Not in a batch: the response comes in a file. Leave it out."]})
    if body.not_before is not None:
        raise invalid_request({"not_before": ["Not in a line: send it with the batch, for all of its lines."]})
    made = plan(body, jobs, batch.principal)
    with made.renaming_fields():
        requests = [with_max_tokens(request, batch.principal.max_tokens) for request in made.requests]
    return replace(made, requests=requests, ignored=[*ignored, *made.ignored]), body.user


def _fault_of_ours(error: Exception, custom_id: str) -> LLMAPIError:
    """Log an error of our own; the line must not stop the others."""
    logger.error("the line %r of a batch failed", custom_id, exc_info=error)
    return LLMAPIError("the API failed on this request; its log says why")


def _job_id(batch_id: str, number: int, choice: int) -> str:
    """Return a UUID that cannot be guessed without the batch's."""
    return str(uuid.uuid5(uuid.UUID(batch_id.removeprefix("batch_")), f"{number}.{choice}"))


def _tokens(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the tokens read, cached and written, from the usage of any endpoint."""
    read = usage.get("input_tokens", usage.get("prompt_tokens", 0))
    details = usage.get("input_tokens_details", usage.get("prompt_tokens_details", {}))
    written = usage.get("output_tokens", usage.get("completion_tokens", 0))
    return read, details.get("cached_tokens", 0), written
