"""Completions: from a request to its jobs, from their texts to choices and chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from app.api.job_service import JobService
from app.api.openai import unenforced
from app.api.openai.chunk_stream import Choice, ChunkEncoder
from app.api.openai.envelope import envelope, finish_reason_of, usage_of
from app.api.openai.logprobs import CompletionLogprobs, mean_logprob
from app.api.openai.plan import RequestPlan, copies
from app.api.schemas.openai.completions import CompletionBody
from app.jobs.job import FinishReason, Job, JobRequest, Kind, TokenLogprob
from app.jobs.principal import Principal

OBJECT, PREFIX = "text_completion", "cmpl"


def plan(body: CompletionBody, jobs: JobService, principal: Principal) -> RequestPlan:
    """Raises ModelNotFound, InvalidRequest (the webhook, an adapter)."""
    config = jobs.config
    adapters = jobs.adapters.chosen(body.model, body.lora, "lora", principal.models)
    request = jobs.make_request(Kind.GENERATE, body, principal, stream=body.stream, adapters=adapters)

    def make_body(made: Sequence[Job]) -> dict[str, Any]:
        choices = [_text_choice(index, job, body) for index, job in enumerate(_best(made, body))]
        counted = usage_of(made, len(body.prompts))
        return {**envelope(OBJECT, PREFIX, made[0], request, config), "choices": choices, "usage": counted}

    def make_encoder(made: Sequence[Job]) -> ChunkEncoder:
        writers = [CompletionWriter(index, body) for index in range(len(made))]
        head = envelope(OBJECT, PREFIX, made[0], request, config)
        return ChunkEncoder(writers, head, prompts=len(body.prompts), includes_usage=body.include_usage)

    return RequestPlan(
        requests=_with_prompts(request, body),
        make_body=make_body,
        make_encoder=make_encoder if body.stream else None,
        unenforced=unenforced.of_params(body.params, config, body.sent_names),
        field_names={**body.sent_names, "params.": ""},
        prompt_fields=None if body.is_one else lambda index: [f"prompt.{index // body.best_of}"],
    )


def _with_prompts(request: JobRequest, body: CompletionBody) -> list[JobRequest]:
    """Return `best_of` requests for each prompt, in the order of the prompts."""
    params = dict(body.params)
    if body.best_of > body.n:
        params.setdefault("logprobs", 0)  # the texts are compared by them
    made: list[JobRequest] = []
    for prompt in body.prompts:
        text, tokens = (prompt, None) if isinstance(prompt, str) else ("", prompt)
        made += copies(replace(request, params=params, prompt=text, prompt_tokens=tokens), body.best_of)
    return made


def _best(jobs: Sequence[Job], body: CompletionBody) -> list[Job]:
    """Return for each prompt the `n` likeliest of its `best_of` texts, the likeliest first."""
    if body.best_of == body.n:
        return list(jobs)
    best: list[Job] = []
    for start in range(0, len(jobs), body.best_of):
        candidates = jobs[start : start + body.best_of]
        best += sorted(candidates, key=_likelihood, reverse=True)[: body.n]
    return best


def _text_choice(index: int, job: Job, body: CompletionBody) -> Choice:
    """Return a choice of a response that is not a stream."""
    assert job.output is not None, "the job has succeeded"
    logprobs = CompletionLogprobs().take(job.output.logprobs or ()) if "logprobs" in body.params else None
    return _choice(index, job.output.text, logprobs, finish_reason_of(job.output.finish_reason))


class CompletionWriter:
    """Writes one choice in chunks."""

    def __init__(self, index: int, body: CompletionBody) -> None:
        self._index = index
        self._logprobs = CompletionLogprobs() if "logprobs" in body.params else None

    def delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Choice]:
        if text or logprobs:
            taken = None if self._logprobs is None else self._logprobs.take(logprobs)
            yield _choice(self._index, text, taken, None)

    def end(self, finish_reason: FinishReason | None) -> Iterator[Choice]:
        yield _choice(self._index, "", None, finish_reason_of(finish_reason))


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> Choice:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _likelihood(job: Job) -> float:
    return mean_logprob((job.output.logprobs if job.output else None) or ())
