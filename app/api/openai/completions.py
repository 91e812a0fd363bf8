"""Completions: from a request to its jobs, from their texts to choices and chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from app.api import dispatch
from app.api.openai.choices import copies
from app.api.openai.envelope import FINISH_REASONS, Envelope, check_model, usage_of
from app.api.openai.logprobs import CompletionLogprobs, mean_logprob
from app.api.openai.plan import AnswerPlan
from app.api.schemas.openai.completions import CompletionBody
from app.config.settings import Config
from app.jobs.job import FinishReason, Job, JobRequest, Kind, TokenLogprob

OBJECT, PREFIX = "text_completion", "cmpl"
_FIELD_NAMES = {"params.": ""}

Choice = dict[str, Any]


def plan(body: CompletionBody, config: Config) -> AnswerPlan:
    """Raises ModelNotFound."""
    check_model(body.model, config.model_name)
    requests = _with_prompts(dispatch.job_request(Kind.GENERATE, body, stream=body.stream), body)

    def answer(jobs: list[Job]) -> dict[str, Any]:
        told = [_text_choice(index, job, body) for index, job in enumerate(_best(jobs, body))]
        return Envelope.of(OBJECT, PREFIX, jobs[0], config).hold(told, usage=usage_of(jobs, len(body.prompts)))

    return AnswerPlan(requests=requests, answer=answer, field_names=_FIELD_NAMES)


def _with_prompts(request: JobRequest, body: CompletionBody) -> list[JobRequest]:
    """`best_of` requests for each prompt, in the order of the prompts."""
    params = dict(body.params)
    if body.best_of > body.n:
        params.setdefault("logprobs", 0)  # they are compared by them
    made: list[JobRequest] = []
    for prompt in body.prompts:
        text, tokens = (prompt, None) if isinstance(prompt, str) else ("", prompt)
        made += copies(replace(request, params=params, prompt=text, prompt_tokens=tokens), body.best_of)
    return made


def _best(jobs: Sequence[Job], body: CompletionBody) -> list[Job]:
    """For each prompt the `n` likeliest answers of its `best_of`, the likeliest first."""
    if body.best_of == body.n:
        return list(jobs)
    found: list[Job] = []
    for start in range(0, len(jobs), body.best_of):
        candidates = jobs[start : start + body.best_of]
        found += sorted(candidates, key=_likelihood, reverse=True)[: body.n]
    return found


def _text_choice(index: int, job: Job, body: CompletionBody) -> Choice:
    """A choice of a whole answer."""
    assert job.output is not None, "the job has succeeded"
    logprobs = CompletionLogprobs().take(job.output.logprobs or ()) if "logprobs" in body.params else None
    return _choice(index, job.output.text, logprobs, _finish_reason(job.output.finish_reason))


class CompletionWriter:
    """Writes one choice in chunks."""

    def __init__(self, index: int, body: CompletionBody) -> None:
        self._index = index
        self._logprobs = CompletionLogprobs() if "logprobs" in body.params else None

    def delta(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Choice]:
        if text or logprobs:
            told = None if self._logprobs is None else self._logprobs.take(logprobs)
            yield _choice(self._index, text, told, None)

    def end(self, finish_reason: FinishReason | None) -> Iterator[Choice]:
        yield _choice(self._index, "", None, _finish_reason(finish_reason))


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> Choice:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _likelihood(job: Job) -> float:
    return mean_logprob((job.output.logprobs if job.output else None) or ())


def _finish_reason(reason: FinishReason | None) -> str:
    return FINISH_REASONS.get(reason, "stop") if reason is not None else "stop"
