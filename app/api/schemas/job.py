"""The job object, and what may be asked about jobs."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, post_dump, validate

from app.jobs.job import AnswerSource, FinishReason, Job, Kind, Priority, Status

JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
CURSOR = r"^[0-9]{1,12}\.[0-9]{6}$"  # of the list: opaque to clients
MAX_WAIT_SECONDS = 60
DEFAULT_LIMIT, MAX_LIMIT = 20, 100


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as `JobSchema` shows it: the record, and what only the queue and the URL space know.

    estimated_start_at: Unix seconds.
    """

    job: Job
    queue_position: int | None
    estimated_start_at: float | None

    object = "job"

    @property
    def urls(self) -> dict[str, str]:
        here = job_path(self.job.id)
        return {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)


def job_path(job_id: str) -> str:
    return f"/jobs/{job_id}"


class Timestamp(fields.DateTime):
    """Unix seconds, shown as RFC 3339 in UTC."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        if value is None:
            return None
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class TokenLogprobSchema(Schema):
    token = fields.String(required=True)
    logprob = fields.Float(
        required=True, allow_none=True, metadata={"description": "Natural logarithm; null: nothing predicts the token."}
    )
    top = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        metadata={"description": "The likeliest tokens and their logprobs."},
    )


class OutputSchema(Schema):
    text = fields.String(required=True)
    finish_reason = fields.Enum(FinishReason, by_value=True, required=True, allow_none=True)
    logprobs = fields.List(fields.Nested(TokenLogprobSchema), required=True, allow_none=True)
    embeddings = fields.List(
        fields.List(fields.Float()), metadata={"description": "Only of kind embed: one row per text."}
    )

    @post_dump
    def _embeddings_only_where_they_are(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if data["embeddings"] is None:
            del data["embeddings"]
        return data


class UsageSchema(Schema):
    prompt_tokens = fields.Integer(required=True)
    completion_tokens = fields.Integer(required=True)
    cached_tokens = fields.Integer(required=True)


class MetricsSchema(Schema):
    source = fields.Enum(
        AnswerSource,
        by_value=True,
        required=True,
        allow_none=True,
        metadata={
            "description": "computed; joined: computed together with the same request of another job; cached: the "
            "answer to the same request of an earlier job (`cache.ttl`). Null where nothing was answered."
        },
    )
    queue_seconds = fields.Float(required=True, allow_none=True)
    time_to_first_token_seconds = fields.Float(required=True, allow_none=True)
    tokens_per_second = fields.Float(required=True, allow_none=True)


class JobErrorSchema(Schema):
    code = fields.String(required=True)
    message = fields.String(required=True)


class UrlsSchema(Schema):
    self = fields.String(required=True)
    events = fields.String(required=True)
    cancel = fields.String(required=True)


class JobSchema(Schema):
    id = fields.UUID(required=True)
    object = fields.String(required=True, validate=validate.Equal("job"), metadata={"enum": ["job"]})
    kind = fields.Enum(Kind, by_value=True, required=True)
    model = fields.String(required=True)
    status = fields.Enum(Status, by_value=True, required=True)
    priority = fields.Enum(Priority, by_value=True, required=True)
    attempt = fields.Integer(required=True, metadata={"description": "How many workers have taken the job."})
    queue_position = fields.Integer(
        required=True, allow_none=True, metadata={"description": "1 = next; null once it has started."}
    )
    estimated_start_at = Timestamp(
        required=True,
        allow_none=True,
        metadata={
            "description": "When its turn should come, from its place in line, the mean time of a job and the slots "
            "that serve. Null once it has started, while no worker is ready, and before any job has been measured."
        },
    )
    created_at = Timestamp(required=True)
    started_at = Timestamp(required=True, allow_none=True)
    completed_at = Timestamp(required=True, allow_none=True)
    output = fields.Nested(OutputSchema, required=True, allow_none=True)
    usage = fields.Nested(UsageSchema, required=True, allow_none=True)
    metrics = fields.Nested(MetricsSchema, required=True, allow_none=True)
    error = fields.Nested(JobErrorSchema, required=True, allow_none=True)
    urls = fields.Nested(UrlsSchema, required=True)


class JobListSchema(Schema):
    object = fields.String(required=True, validate=validate.Equal("list"), metadata={"enum": ["list"]})
    data = fields.List(fields.Nested(JobSchema), required=True)
    next_cursor = fields.String(
        required=True, allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one."}
    )


class JobQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    wait = fields.Float(
        load_default=0.0,
        validate=validate.Range(0, MAX_WAIT_SECONDS),
        metadata={"description": "Seconds to wait for the job's end."},
    )


class JobListQuerySchema(Schema):
    class Meta:
        unknown = EXCLUDE

    status = fields.Enum(Status, by_value=True)
    limit = fields.Integer(load_default=DEFAULT_LIMIT, validate=validate.Range(1, MAX_LIMIT))
    cursor = fields.String(
        validate=validate.Regexp(CURSOR, error="Must be the next_cursor of an earlier answer."),
        metadata={"description": "`next_cursor` of a page."},
    )
