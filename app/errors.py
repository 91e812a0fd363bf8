"""Every error that a caller or an operator can get, in one tree.

    LLMAPIError
    ├── RequestError                  the request is wrong
    │   ├── MalformedRequest          400  not JSON, or not a JSON object; or not HTTP
    │   ├── Unauthorized              401
    │   ├── Forbidden                 403  the API key does not allow it
    │   │   └── MissingScope          403
    │   ├── UnknownHost               403  without API keys: a `Host` that is not in `server.allowed_hosts`
    │   ├── CrossSiteRequest          403  without API keys: a page that is not in `server.allowed_origins`
    │   ├── NotEnabled                403  the configuration does not allow it
    │   ├── JobNotFound               404
    │   ├── ModelNotFound             404
    │   ├── FileNotFound              404
    │   ├── BatchNotFound             404
    │   ├── ResponseNotFound          404
    │   ├── KeyNotFound               404  an API key, for `/admin/keys`
    │   ├── RequestTimeout            408  the body arrived too slowly
    │   ├── Conflict                  409
    │   ├── JobCanceled               409
    │   ├── BodyTooLarge              413
    │   ├── StorageFull               413  an owner's files hold as many bytes as they may
    │   ├── RequestLineTooLong        414
    │   ├── UnsupportedEncoding       415  the body's `Content-Encoding`
    │   ├── ExpectationUnknown        417
    │   ├── InvalidRequest            422  a field is invalid
    │   │   ├── PromptTooLong         422
    │   │   ├── InvalidGrammar        422
    │   │   │   └── GrammarTooCostly  422
    │   │   └── UnsupportedParameter  422
    │   ├── HeadersTooLarge           431
    │   └── TransferCodingUnknown     501
    ├── ServiceError                  the service cannot serve the request
    │   ├── NotAdmitted               503  no job was made
    │   │   ├── RateLimited           429  a limit of the API key is reached
    │   │   │   └── BudgetSpent       429  its tokens of the day or of the month are used
    │   │   ├── QueueFull             503  `jobs.max_queued` jobs are waiting
    │   │   └── NoWorker              503  no worker of the model runs or will come, or none replied to a tokenizer call
    │   ├── AdapterUnavailable        503  a worker cannot load an adapter that was loaded at run time
    │   ├── TooManyWaiters            503  this process has reached its limit of waiting requests
    │   ├── StoreUnavailable          503  Redis does not respond, or is full, loading or a replica
    │   ├── ShuttingDown              503  this API process stops; a job that was made continues
    │   ├── WaitTimeout               504
    │   ├── JobTimeout                504
    │   ├── JobExpired                504
    │   ├── UpstreamBusy              503  the server that a worker forwards to is busy, or has failed
    │   ├── UpstreamFailed            502
    │   ├── EngineFailed              500
    │   └── WorkerLost                500
    └── StartupError                  a process cannot start; the operator sees the message as one line
        ├── ConfigError
        └── ModelUnavailable

`code` is the stable name for programs. It is part of problem documents and of the job record, from which
`error_from_code` makes the error again in another process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

FieldErrors = Mapping[str, Sequence[str]]


class LLMAPIError(Exception):
    """The base of the tree.

    Args:
        detail: one sentence for the caller that names the fix; never a secret, never a prompt.
        errors: messages by the dotted path of their field (`params.temperature`).
        retry_after_seconds: the value of `Retry-After`; None: no such header.
        location: the path of the job that continues; for a stream, whose headers have been sent.

    Attributes:
        job_index: which of the jobs of its request failed.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: FieldErrors | None = None,
        retry_after_seconds: int | None = None,
        location: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors: FieldErrors = errors or {}
        self.retry_after_seconds = retry_after_seconds
        self.location = location
        self.job_index = 0


class RequestError(LLMAPIError):
    code, status, title = "bad_request", 400, "Bad request"


class MalformedRequest(RequestError):
    code, status, title = "malformed_request", 400, "Malformed request"


class Unauthorized(RequestError):
    code, status, title = "unauthorized", 401, "Unauthorized"


class Forbidden(RequestError):
    code, status, title = "forbidden", 403, "Forbidden"


class MissingScope(Forbidden):
    code, title = "missing_scope", "Missing scope"


class UnknownHost(RequestError):
    code, status, title = "unknown_host", 403, "Unknown host"


class CrossSiteRequest(RequestError):
    code, status, title = "cross_site_request", 403, "Cross-site request"


class NotEnabled(RequestError):
    code, status, title = "not_enabled", 403, "Not enabled"


class JobNotFound(RequestError):
    code, status, title = "job_not_found", 404, "Job not found"


class ModelNotFound(RequestError):
    code, status, title = "model_not_found", 404, "Model not found"


class FileNotFound(RequestError):
    code, status, title = "file_not_found", 404, "File not found"


class BatchNotFound(RequestError):
    code, status, title = "batch_not_found", 404, "Batch not found"


class ResponseNotFound(RequestError):
    code, status, title = "response_not_found", 404, "Response not found"


class KeyNotFound(RequestError):
    code, status, title = "key_not_found", 404, "API key not found"


class RequestTimeout(RequestError):
    code, status, title = "request_timeout", 408, "Request timeout"


class Conflict(RequestError):
    code, status, title = "conflict", 409, "Conflict"


class JobCanceled(RequestError):
    code, status, title = "job_canceled", 409, "Job canceled"


class BodyTooLarge(RequestError):
    code, status, title = "body_too_large", 413, "Body too large"


class RequestLineTooLong(RequestError):
    code, status, title = "request_line_too_long", 414, "Request line too long"


class ExpectationUnknown(RequestError):
    code, status, title = "expectation_unknown", 417, "Expectation unknown"


class HeadersTooLarge(RequestError):
    code, status, title = "headers_too_large", 431, "Headers too large"


class TransferCodingUnknown(RequestError):
    code, status, title = "transfer_coding_unknown", 501, "Transfer coding unknown"


class UnsupportedEncoding(RequestError):
    code, status, title = "unsupported_encoding", 415, "Unsupported encoding"


class StorageFull(RequestError):
    code, status, title = "storage_full", 413, "Storage full"


class InvalidRequest(RequestError):
    code, status, title = "invalid_request", 422, "Invalid request"


class PromptTooLong(InvalidRequest):
    code, title = "prompt_too_long", "Prompt too long"

    @classmethod
    def for_context(
        cls,
        field: str,
        *,
        tokens: int,
        context_tokens: int,
        completion_tokens: int = 1,
        cure: str = "",
        is_at_least: bool = False,
    ) -> "PromptTooLong":
        """Return the error in OpenAI's words, which clients search for before they shorten a chat or fall back.

        Args:
            field: the path of the field that is too long.
            tokens: of that field. context_tokens: how many fit, with a completion of `completion_tokens`.
            cure: what else helps than a shorter text, as the end of a sentence.
            is_at_least: the field has these tokens or more; they were not all counted.
        """
        shown = f"{'at least ' if is_at_least else ''}{tokens} in {field}"
        asked = f"{tokens + completion_tokens} tokens ({shown}, {completion_tokens} in the completion)"
        detail = (
            f"This model's maximum context length is {context_tokens} tokens. However, you requested {asked}: the "
            f"prompt is too long. Please reduce the length of {field}{f' or {cure}' if cure else ''}."
        )
        return cls(detail, errors={field: [detail]})


class InvalidGrammar(InvalidRequest):
    code, title = "invalid_grammar", "Invalid grammar"


class GrammarTooCostly(InvalidGrammar):
    """It takes too long to compile or to follow, which took long to find out."""

    code, title = "grammar_too_costly", "Grammar too costly"


class UnsupportedParameter(InvalidRequest):
    code, title = "unsupported_parameter", "Unsupported parameter"


class ServiceError(LLMAPIError):
    code, status, title = "service_error", 503, "Service unavailable"


class NotAdmitted(ServiceError):
    """No job was made. waiting: how many jobs of the model wait."""

    code, title = "not_admitted", "Not admitted"

    def __init__(self, detail: str, *, waiting: int = 0, **options: Any) -> None:
        super().__init__(detail, **options)
        self.waiting = waiting


class RateLimited(NotAdmitted):
    """limit: its name, as in `app.access.api_key.Limits`."""

    code, status, title = "rate_limit_exceeded", 429, "Rate limit exceeded"

    def __init__(self, detail: str, *, limit: str = "", **options: Any) -> None:
        super().__init__(detail, **options)
        self.limit = limit


class BudgetSpent(RateLimited):
    code, title = "budget_spent", "Budget spent"


class QueueFull(NotAdmitted):
    code, title = "queue_full", "Queue full"


class NoWorker(NotAdmitted):
    """location: of a job that was made before the last worker failed, and waits."""

    code, title = "no_worker", "No worker"


class AdapterUnavailable(ServiceError):
    code, title = "adapter_unavailable", "Adapter unavailable"


class TooManyWaiters(ServiceError):
    code, title = "too_many_waiters", "Too many waiting requests"


class StoreUnavailable(ServiceError):
    code, title = "store_unavailable", "Redis unavailable"


class ShuttingDown(ServiceError):
    code, title = "shutting_down", "Shutting down"


class WaitTimeout(ServiceError):
    code, status, title = "wait_timeout", 504, "Still running"


class JobTimeout(ServiceError):
    code, status, title = "timeout", 504, "Job timed out"


class JobExpired(ServiceError):
    code, status, title = "expired", 504, "Job expired"


class UpstreamBusy(ServiceError):
    code, title = "upstream_busy", "Upstream busy"


class UpstreamFailed(ServiceError):
    code, status, title = "upstream_error", 502, "Upstream error"


class EngineFailed(ServiceError):
    code, status, title = "engine_error", 500, "Engine error"


class WorkerLost(ServiceError):
    code, status, title = "worker_lost", 500, "Worker lost"


class StartupError(LLMAPIError):
    code, title = "startup_error", "Cannot start"


class ConfigError(StartupError):
    code, title = "config_error", "Configuration error"


class ModelUnavailable(StartupError):
    code, title = "model_unavailable", "Model unavailable"


def _tree(root: type[LLMAPIError]) -> dict[str, type[LLMAPIError]]:
    classes = {root.code: root}
    for child in root.__subclasses__():
        classes |= _tree(child)
    return classes


_BY_CODE = _tree(LLMAPIError)


def error_from_code(code: str, detail: str, errors: FieldErrors | None = None) -> LLMAPIError:
    """Return the error with this code, or an `LLMAPIError` (500) if the code is unknown, as of a newer worker."""
    return _BY_CODE.get(code, LLMAPIError)(detail, errors=errors)
