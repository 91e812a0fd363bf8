"""A line of a batch: the jobs that it makes, and the line that answers it."""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from marshmallow import Schema, ValidationError

from app.api import dispatch
from app.api.batches.batches import Answered
from app.api.batches.input import read_line
from app.api.json_response import write_json
from app.api.openai import chat, completions, embeddings, responses
from app.api.openai.field_names import fields_called
from app.api.openai.plan import AnswerPlan
from app.api.problems import openai_error, openai_status
from app.api.request_parser import invalid_request
from app.api.schemas.openai.chat import ChatSchema
from app.api.schemas.openai.completions import CompletionSchema
from app.api.schemas.openai.embeddings import EmbeddingSchema
from app.api.schemas.openai.responses import ResponseSchema
from app.config.settings import Config
from app.errors import BodyTooLarge, LLMAPIError
from app.jobs.job import Job, JobRequest, Priority

_ENDINGS = {
    "cancelled": ("batch_cancelled", "this request was not answered before its batch was cancelled"),
    "expired": ("batch_expired", "this request was not answered within the completion window"),
}
ENDPOINTS: Mapping[str, tuple[Schema, Callable[[Any, Config], AnswerPlan]]] = {
    "/v1/chat/completions": (ChatSchema(), chat.plan),
    "/v1/completions": (CompletionSchema(), completions.plan),
    "/v1/embeddings": (EmbeddingSchema(), embeddings.plan),
    "/v1/responses": (ResponseSchema(), responses.plan),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """number: 0 = the first of its file. plan: None where `refusal` says what is wrong, or nobody asks any more.

    job_ids: of its jobs, the same whoever reads the line: one job is made however often it is asked for.
    """

    number: int
    custom_id: str
    plan: AnswerPlan | None
    refusal: LLMAPIError | None
    job_ids: Sequence[str]

    @property
    def requests(self) -> list[JobRequest]:
        """Behind everybody who waits for an answer; kept until the batch has it."""
        planned = () if self.plan is None else self.plan.requests
        return [
            replace(one, priority=Priority.LOW, ttl_seconds=None, expires_in_seconds=None, stream=False)
            for one in planned
        ]

    def answered(self, jobs: Sequence[Job]) -> Answered:
        """By its jobs, all final; a line that was refused has none."""
        try:
            if self.refusal is not None:
                raise self.refusal
            assert self.plan is not None, "a line is refused, or has a plan"
            with fields_called(self.plan.field_names):
                for job in jobs:
                    dispatch.raise_unless_succeeded(job.status, job.error)
                body = self.plan.answer(list(jobs))
        except LLMAPIError as error:
            return self._failed(error)
        except Exception as error:
            return self._failed(_fault_of_ours(error, self.custom_id))
        return self._told(200, body, has_failed=False)

    def given_up(self, ending: str) -> Answered:
        """Why its batch has no answer for it."""
        code, message = _ENDINGS[ending]
        return self._write(None, {"code": code, "message": message}, (0, 0, 0), has_failed=True)

    def _failed(self, error: LLMAPIError) -> Answered:
        return self._told(openai_status(error), openai_error(error), has_failed=True)

    def _told(self, status: int, body: dict[str, Any], *, has_failed: bool) -> Answered:
        response = {"status_code": status, "request_id": f"req_{self._id}", "body": body}
        return self._write(response, None, _tokens(body.get("usage") or {}), has_failed=has_failed)

    def _write(
        self,
        response: dict[str, Any] | None,
        error: dict[str, Any] | None,
        tokens: tuple[int, int, int],
        *,
        has_failed: bool,
    ) -> Answered:
        told = {"id": f"batch_req_{self._id}", "custom_id": self.custom_id, "response": response, "error": error}
        return Answered(self.number, write_json(told) + "\n", has_failed, tokens)

    @property
    def _id(self) -> str:
        return self.job_ids[0].replace("-", "")


def line_of(batch_id: str, number: int, text: str, endpoint: str, config: Config) -> Line:
    """Validated as a request of its own would be. Raises `redis.RedisError`: then nothing is known of the line."""
    plan, refusal, value = None, None, read_line(text)
    try:
        plan = _plan(value, len(text.encode()), endpoint, config)
    except LLMAPIError as error:
        refusal = error
    except redis.RedisError:
        raise
    except Exception as error:
        refusal = _fault_of_ours(error, value["custom_id"])
    count = 1 if plan is None else len(plan.requests)
    ids = [_job_id(batch_id, number, choice) for choice in range(count)]
    return Line(number=number, custom_id=value["custom_id"], plan=plan, refusal=refusal, job_ids=ids)


def unasked_line(batch_id: str, number: int, text: str) -> Line:
    """One that is given up without having been looked at."""
    custom_id = read_line(text)["custom_id"]
    ids = [_job_id(batch_id, number, 0)]
    return Line(number=number, custom_id=custom_id, plan=None, refusal=None, job_ids=ids)


def _plan(value: Mapping[str, Any], size: int, endpoint: str, config: Config) -> AnswerPlan:
    """Raises LLMAPIError."""
    if value.get("method") != "POST":
        raise invalid_request({"method": ["Must be POST."]})
    if value.get("url") != endpoint:
        raise invalid_request({"url": [f"Must be the endpoint of the batch, {endpoint}."]})
    if not isinstance(value.get("body"), dict):
        raise invalid_request({"body": ["Must be an object: the request."]})
    if size > config.server.max_body_bytes:
        raise BodyTooLarge("the line is longer than server.max_body_bytes allows; send less")
    schema, plan = ENDPOINTS[endpoint]
    try:
        body = schema.load(value["body"])
    except ValidationError as error:
        raise invalid_request(error.messages_dict) from None
    for name in ("stream", "background"):
        if getattr(body, name, False):
            raise invalid_request({name: ["Not in a batch: the answer comes in a file. Leave it out."]})
    return plan(body, config)


def _fault_of_ours(error: Exception, custom_id: str) -> LLMAPIError:
    """A line that we fail on must not hold up the others."""
    logger.error("the line %r of a batch failed", custom_id, exc_info=error)
    return LLMAPIError("the API failed on this request; its log says why")


def _job_id(batch_id: str, number: int, choice: int) -> str:
    """A UUID that nobody can guess who does not know the batch's."""
    return str(uuid.uuid5(uuid.UUID(batch_id.removeprefix("batch_")), f"{number}.{choice}"))


def _tokens(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Read, cached and written, as the answer of any endpoint tells them."""
    read = usage.get("input_tokens", usage.get("prompt_tokens", 0))
    details = usage.get("input_tokens_details", usage.get("prompt_tokens_details", {}))
    written = usage.get("output_tokens", usage.get("completion_tokens", 0))
    return read, details.get("cached_tokens", 0), written
