"""Jobs in the HTTP API: the options that a request may set, and the job object."""

import re
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, fields, post_dump, validate

from app.api.schemas.fields import RealNumber, TextField, Timestamp, WholeNumber, constant
from app.api.schemas.not_before import NotBefore, StartTime
from app.api.schemas.request_schema import RequestSchema
from app.api.schemas.webhook import WebhookSchema, WebhookStatusSchema
from app.jobs.job import FinishReason, Job, Kind, OnDisconnect, OutputSource, Priority, Status, Webhook

JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
MAX_TIMEOUT_SECONDS = 86_400 * 7
MAX_SALT_LENGTH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a job is run. timeout, expires_in, ttl: seconds of running, of waiting, and kept after the end.

    not_before: it must not start earlier, and its waiting counts from then on.

    None: the server's `jobs.timeout`, no limit, `jobs.ttl`, and the endpoint's own default for `on_disconnect`.
    priority: None: normal, or the highest that the API key may ask for. user: the label of the job's usage.
    store: False: the job is deleted once its client has the output. Only OpenAI's API has it.
    cache_salt: as of `JobRequest`.
    """

    priority: Priority | None = None
    timeout: float | None = None
    expires_in: float | None = None
    not_before: StartTime | None = None
    ttl: int | None = None
    on_disconnect: OnDisconnect | None = None
    webhook: Webhook | None = None
    store: bool = True
    cache_salt: str = ""
    user: str | None = None


class JobOptionsSchema(RequestSchema):
    """The fields beside the prompt that every endpoint has that makes a job."""

    priority = fields.Enum(
        Priority,
        by_value=TextField,
        metadata={
            "description": "Waiting jobs of a higher priority start first. Default: normal, or "
            "the highest that the API key may ask for."
        },
    )
    timeout = RealNumber(
        validate=validate.Range(1, MAX_TIMEOUT_SECONDS),
        metadata={"description": "Seconds the job may run; never more than the server's jobs.timeout."},
    )
    expires_in = RealNumber(
        validate=validate.Range(min=1),
        metadata={
            "description": "Seconds the job may wait for its turn, from `not_before` if it has one; after them it ends "
            "as `expired`. Default: no limit."
        },
    )
    not_before = NotBefore("When the job may start; until then it waits outside of the queue. Default: at once.")
    ttl = WholeNumber(
        validate=validate.Range(min=1),
        metadata={
            "description": "Seconds the job is kept after its end. Default and maximum: the server's jobs.ttl; "
            "a larger value is reduced to it."
        },
    )
    on_disconnect = fields.Enum(
        OnDisconnect,
        by_value=TextField,
        metadata={
            "description": "What happens to the job when the client disconnects. Default: cancel for a request that "
            "waits or streams without an Idempotency-Key, else continue."
        },
    )
    webhook = fields.Nested(WebhookSchema)
    cache_salt = TextField(
        validate=validate.Length(min=1, max=MAX_SALT_LENGTH),
        metadata={
            "description": "Share computed prefixes and cached responses only with requests that have the same salt, "
            "within what may be shared without one."
        },
    )


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as `JobSchema` shows it: the record, its position in the queue, and its URLs.

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


class TokenLogprobSchema(Schema):
    token = fields.String(required=True)
    logprob = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "The natural logarithm; null for a token that nothing predicts."},
    )
    top = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        metadata={"description": "The most likely tokens and their log probabilities."},
    )


class OutputSchema(Schema):
    text = fields.String(required=True)
    finish_reason = fields.Enum(FinishReason, by_value=True, required=True, allow_none=True)
    logprobs = fields.List(fields.Nested(TokenLogprobSchema), required=True, allow_none=True)
    embeddings = fields.List(
        fields.List(fields.Float()), metadata={"description": "One row per text; only in jobs of the kind embed."}
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
        OutputSource,
        by_value=True,
        required=True,
        allow_none=True,
        metadata={
            "description": "computed; cached: the output of an earlier job with an equal request (`cache.ttl`). Null "
            "if there is no output."
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
    object = constant("job")
    kind = fields.Enum(Kind, by_value=True, required=True)
    model = fields.String(required=True)
    status = fields.Enum(Status, by_value=True, required=True)
    priority = fields.Enum(Priority, by_value=True, required=True)
    attempt = fields.Integer(required=True, metadata={"description": "How many workers have started the job."})
    queue_position = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "1 = next; null once the job has started, and until its `not_before`."},
    )
    estimated_start_at = Timestamp(
        required=True,
        allow_none=True,
        metadata={
            "description": "When the job should start, estimated from its position in the queue, the mean time of a "
            "job and the number of slots. Null once it has started, until its `not_before`, while no worker is ready, "
            "and before any job has ended."
        },
    )
    created_at = Timestamp(required=True)
    not_before = Timestamp(
        required=True, allow_none=True, metadata={"description": "When the job may start, if it may not at once."}
    )
    started_at = Timestamp(required=True, allow_none=True)
    completed_at = Timestamp(required=True, allow_none=True)
    output = fields.Nested(OutputSchema, required=True, allow_none=True)
    usage = fields.Nested(UsageSchema, required=True, allow_none=True)
    metrics = fields.Nested(MetricsSchema, required=True, allow_none=True)
    error = fields.Nested(JobErrorSchema, required=True, allow_none=True)
    webhook = fields.Nested(
        WebhookStatusSchema,
        attribute="webhook_status",
        required=True,
        allow_none=True,
        metadata={
            "description": "What has become of it. Null until the job has ended, and if its end is not reported."
        },
    )
    urls = fields.Nested(UrlsSchema, required=True)


class JobListSchema(Schema):
    object = constant("list")
    data = fields.List(fields.Nested(JobSchema), required=True)
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The `cursor` of the next page; null on the last page."},
    )
