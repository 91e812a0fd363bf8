"""What a job is: its request, its states and its outcome, as plain dataclasses that cross process borders as JSON."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

ANONYMOUS = "anonymous"
"""The owner of every job where no API keys are configured."""


class Kind(StrEnum):
    GENERATE = "generate"
    EMBED = "embed"


class Status(StrEnum):
    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self not in (Status.QUEUED, Status.PROCESSING)


JOB_EVENTS = tuple(f"job.{status}" for status in Status if status.is_final)


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def step(self) -> int:
        """The priority's class in the order of jobs: lower runs first (`lua/order.lua`)."""
        return list(Priority).index(self)


class FinishReason(StrEnum):
    STOP = "stop"  # end-of-generation token, or a stop string
    LENGTH = "length"  # max_tokens, or the context is full
    CONTENT_FILTER = "content_filter"  # of an upstream server
    CANCELED = "canceled"
    TIMEOUT = "timeout"
    ERROR = "error"


class OnDisconnect(StrEnum):
    CANCEL = "cancel"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation. The worker makes a prompt of it, with its model's own chat template.

    messages: as OpenAI's API has them, contents as texts. tools: functions that the model may call, as there.
    variables: what else the template may read (`enable_thinking`, say).

    calls: set only with tools. What `params.json_schema` was built from (`tool_choice`, `parallel_tool_calls`, and the
    `schema` of a response that calls no tool), for a family that forwards these instead of constraining the output.

    continues: whether the output continues the last message, which is the assistant's. add_generation_prompt: whether
    the prompt ends with the beginning of a new message of the assistant. None: not set by the client.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    calls: dict[str, Any] = field(default_factory=dict)
    continues: bool | None = None
    add_generation_prompt: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A receiver of a job's end. events: the ends that are sent, each `job.<status>`."""

    url: str
    events: tuple[str, ...] = JOB_EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterUse:
    """A LoRA adapter with which a job is computed. version: see `app.config.adapters.Adapter`."""

    name: str
    scale: float
    version: str = ""


Text = str | tuple[int, ...]
"""A text, or the ids of its tokens in the model's vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What a client asked for, after validation.

    `Kind.GENERATE` has one of `chat`, `prompt_tokens` (ids, as they are) and `prompt`; `Kind.EMBED` has `texts`.
    `params` holds only what the client set, under the canonical names of `app.jobs.sampling`; the engine adds its
    family's defaults.

    priority: as asked for; that of the `Job` may have been changed since.
    response: of a request to `/v1/responses`, what its response object needs again (`app.api.openai.response_object`).
    timeout_seconds: of running. expires_in_seconds: of waiting, None = for ever. not_before: Unix seconds before which
    the job must not start, and from which its waiting counts. delay_seconds: what the client has sent instead of a
    time. ttl_seconds: how long the job is kept after its end, None = `jobs.ttl`. stored: False: deleted as soon as the
    client has its output (`store: false`). adapters: by name; none: the model as it is. cache_salt: only jobs with the
    same one share what is computed; it divides what is shared without one.
    """

    kind: Kind
    prompt: str = ""
    prompt_tokens: tuple[int, ...] | None = None
    chat: Chat | None = None
    texts: tuple[Text, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    timeout_seconds: float = 600.0
    expires_in_seconds: float | None = None
    not_before: float | None = None
    delay_seconds: float | None = None
    ttl_seconds: int | None = None
    stream: bool = False
    webhook: Webhook | None = None
    response: dict[str, Any] | None = None
    stored: bool = True
    adapters: tuple[AdapterUse, ...] = ()
    cache_salt: str = ""

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__slots__}
        if self.stored:
            del values["stored"]
        values["cache_salt"] = self.cache_salt or None
        values["adapters"] = [asdict(use) for use in self.adapters] or None
        if self.chat is not None:
            values["chat"] = asdict(self.chat)
        if self.webhook is not None:
            values["webhook"] = asdict(self.webhook)
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "JobRequest":
        data = dict(data)
        data["kind"], data["priority"] = Kind(data["kind"]), Priority(data["priority"])
        data["texts"] = tuple(text if isinstance(text, str) else tuple(text) for text in data["texts"])
        if "prompt_tokens" in data:
            data["prompt_tokens"] = tuple(data["prompt_tokens"])
        if "chat" in data:
            data["chat"] = Chat(**data["chat"])
        data["adapters"] = tuple(AdapterUse(**use) for use in data.get("adapters", ()))
        if "webhook" in data:
            data["webhook"] = Webhook(url=data["webhook"]["url"], events=tuple(data["webhook"]["events"]))
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Natural-log probability of one generated (or echoed) token and of its likeliest rivals.

    `logprob` is None for the first token of an echoed prompt, which nothing predicts.
    """

    token: str
    logprob: float | None
    top: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Outcome of a job: `text` for `Kind.GENERATE`, `embeddings` (one L2-normalised row per text) for `Kind.EMBED`."""

    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob] | None = None
    embeddings: list[list[float]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class OutputSource(StrEnum):
    """Where a job's output comes from."""

    COMPUTED = "computed"
    CACHED = "cached"  # computed before, for the same request of another job (`cache.ttl`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """source: None if the job ended before a runner began it."""

    source: OutputSource | None = None
    queue_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed: `code` is that of an `app.errors` class, `errors` its messages per field."""

    code: str
    message: str
    errors: dict[str, list[str]] = field(default_factory=dict)


class WebhookState(StrEnum):
    WAITING = "waiting"  # to be sent, or to be sent again
    SENT = "sent"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookStatus:
    """What has become of the webhook of an ended job.

    tries: attempts to send it. error: why the last one failed, or why none is made now. next_try_at: Unix seconds, None
    once it is settled.
    """

    state: WebhookState
    tries: int
    error: str | None = None
    next_try_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, as its record in Redis holds it. Times are Unix seconds.

    webhook_status: None until the job has ended, and if its end is not reported.
    """

    id: str
    kind: Kind
    model: str
    status: Status
    priority: Priority
    owner: str
    created_at: float
    not_before: float | None = None
    attempt: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    output: Output | None = None
    usage: Usage | None = None
    metrics: Metrics | None = None
    error: JobError | None = None
    webhook_status: WebhookStatus | None = None
