"""The job record as Redis holds it, a hash of texts: from its fields to a `Job`, from an outcome to its fields."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.jobs.job import (
    FinishReason,
    Job,
    JobError,
    Kind,
    Metrics,
    Output,
    OutputSource,
    Priority,
    Status,
    TokenLogprob,
    Usage,
    WebhookState,
    WebhookStatus,
)

_PLAIN_FIELDS = [
    "id",
    "kind",
    "model",
    "status",
    "priority",
    "owner",
    "created_at",
    "not_before",
    "attempt",
    "started_at",
    "completed_at",
]
_JSON_FIELDS = ["output", "usage", "metrics", "error", "webhook_status"]
RECORD_FIELDS = _PLAIN_FIELDS + _JSON_FIELDS


def job_from_record(values: list[str | None]) -> Job | None:
    """A job from the fields of its hash, in the order of `RECORD_FIELDS`; None where there is no such record."""
    if values[0] is None:
        return None
    record = {name: value for name, value in zip(RECORD_FIELDS, values, strict=True) if value is not None}
    output, usage, metrics, error, webhook = (json.loads(record.get(name, "null")) for name in _JSON_FIELDS)
    return Job(
        id=record["id"],
        kind=Kind(record["kind"]),
        model=record["model"],
        status=Status(record["status"]),
        priority=Priority(record["priority"]),
        owner=record["owner"],
        created_at=float(record["created_at"]),
        not_before=_time(record.get("not_before")),
        attempt=int(record.get("attempt", 0)),
        started_at=_time(record.get("started_at")),
        completed_at=_time(record.get("completed_at")),
        output=None if output is None else _output(output),
        usage=None if usage is None else Usage(**usage),
        metrics=None if metrics is None else _metrics(metrics),
        error=None if error is None else JobError(**error),
        webhook_status=None if webhook is None else _webhook_status(webhook),
    )


def outcome_fields(
    status: Status, *, output: Output | None, usage: Usage, metrics: Metrics, error: JobError | None
) -> Mapping[str, str]:
    """The end of a job as fields of its record, for `publish.lua`."""
    fields: dict[str, str] = {
        "status": status.value,
        "usage": compact_json(asdict(usage)),
        "metrics": compact_json(asdict(metrics)),
    }
    if output is not None:
        fields["output"] = compact_json({name: value for name, value in asdict(output).items() if value is not None})
    if error is not None:
        fields["error"] = compact_json(asdict(error))
    return fields


def _output(data: dict[str, Any]) -> Output:
    reason, logprobs = data.get("finish_reason"), data.get("logprobs")
    return Output(
        text=data.get("text", ""),
        finish_reason=None if reason is None else FinishReason(reason),
        logprobs=None if logprobs is None else [TokenLogprob(**entry) for entry in logprobs],
        embeddings=data.get("embeddings"),
    )


def _metrics(data: dict[str, Any]) -> Metrics:
    source = data.pop("source", None)
    return Metrics(source=None if source is None else OutputSource(source), **data)


def _webhook_status(data: dict[str, Any]) -> WebhookStatus:
    state = WebhookState(data.pop("state"))
    return WebhookStatus(state=state, **data)


def _time(value: str | None) -> float | None:
    return None if value is None else float(value)


def compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
