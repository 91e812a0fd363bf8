"""Carries what the batch loop produces to Redis: deltas to event streams, outcomes to job records, hints to the API.

One thread, one pipeline per round for all sequences. A job whose stream somebody follows is written at every step; the
others every `UNFOLLOWED_SECONDS`, so that another worker could continue them, and at their end. While Redis is gone
everything is kept and sent again: `lua/publish.lua` writes each delta once however often it is sent.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import redis

from app.contract import keys
from app.contract.event_stream import Published
from app.contract.job_record import RECORD_FIELDS, outcome_fields
from app.contract.job_store import Claim
from app.contract.jobs import FinishReason, JobError, Metrics, Output, Status, TokenLogprob, Usage
from app.contract.redis_client import LoadedScript, RedisClient
from workers.batching.sequence import Outcome, Sequence, Update

UNFOLLOWED_SECONDS = 0.5
RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Delta:
    """One entry of the event stream, frozen once composed: it is sent again unchanged until Redis has confirmed it."""

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprob]
    tokens_before: int


@dataclass(slots=True, eq=False)
class _Page:
    """What is known, and not yet written, of one running job."""

    claim: Claim
    followed: bool
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    composed_tokens: int = 0
    unsent: list[_Delta] = field(default_factory=list)
    written: list[_Delta] = field(default_factory=list)
    written_at: float = 0.0
    end: "_End | None" = None
    leaves: bool = False  # this worker is leaving: the job goes back into the queue
    first_token_seconds: float | None = None  # after the job's creation, where an earlier attempt wrote the first
    on_closed: Callable[[], None] = lambda: None
    closed: threading.Event = field(default_factory=threading.Event)

    def set_end(self, end: "_End") -> None:
        """The first end counts."""
        if self.end is None:
            self.end = end

    def take_over(self, published: Published) -> None:
        """What another worker has written stands as written."""
        for delta in published.deltas:
            self.written.append(_Delta(delta.text, list(delta.tokens), list(delta.logprobs), self.composed_tokens))
            self.composed_tokens += len(delta.tokens)
        if published.first_at is not None:
            self.first_token_seconds = max(0.0, published.first_at - self.claim.created_at)

    def compose(self) -> None:
        """Freeze what has come since the last round."""
        if self.text or self.tokens:
            self.unsent.append(_Delta(self.text, self.tokens, self.logprobs, self.composed_tokens))
            self.composed_tokens += len(self.tokens)
            self.text, self.tokens, self.logprobs = "", [], []


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    status: Status
    finish_reason: FinishReason | None
    usage: Usage
    metrics: Metrics
    error: JobError | None = None
    embeddings: list[list[float]] | None = None


class Publisher:
    """on_fenced: called with the id of a job that another worker has claimed since; its sequence should stop.

    give_back: puts a job back into the queue (`JobStore.hand_back`).
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        model: str,
        ttl_seconds: int,
        on_fenced: Callable[[str], None],
        give_back: Callable[[Claim], object],
    ) -> None:
        self._redis = client
        self._script = LoadedScript(client, "publish")
        self._model = model
        self._ttl_seconds = ttl_seconds
        self._on_fenced = on_fenced
        self._give_back = give_back
        self._pages: dict[str, _Page] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    def open(
        self, claim: Claim, on_closed: Callable[[], None] = lambda: None, published: Published | None = None
    ) -> threading.Event:
        """Begin a job, or go on with one of which something is `published`; when its outcome is written, or another
        worker's to write, the event is set and `on_closed` called, from the publisher's thread.
        """
        page = _Page(claim, claim.followed, written_at=time.monotonic(), on_closed=on_closed)
        if published is not None:
            page.take_over(published)
        self._pages[claim.job_id] = page
        return page.closed

    def follow(self, job_id: str) -> None:
        """Write this job's deltas as they come from now on."""
        page = self._pages.get(job_id)
        if page is not None:
            page.followed = True

    def publish(self, updates: list[Update]) -> None:
        """Take what a step brought. Returns at once."""
        self._inbox.put(lambda: self._take(updates))

    def finish(
        self,
        job_id: str,
        *,
        error: JobError | None = None,
        embeddings: list[list[float]] | None = None,
        usage: Usage | None = None,
    ) -> None:
        """End a job that never was a sequence: it failed before, or it was an embedding. One that has left meanwhile
        is another worker's.
        """
        page = self._pages.get(job_id)
        if page is None:
            return
        failed = error is not None
        end = _End(
            status=Status.FAILED if failed else Status.SUCCEEDED,
            finish_reason=FinishReason.ERROR if failed else None,
            usage=usage or Usage(),
            metrics=Metrics(queue_seconds=page.claim.queue_seconds),
            error=error,
            embeddings=embeddings,
        )

        self._inbox.put(lambda: page.set_end(end))

    def cancel(self, job_id: str) -> None:
        """End a job that is not a sequence yet, or never will be. What has been published of it stays."""
        page = self._pages.get(job_id)
        if page is not None:
            end = _End(
                status=Status.CANCELED,
                finish_reason=FinishReason.CANCELED,
                usage=Usage(completion_tokens=page.composed_tokens),
                metrics=Metrics(queue_seconds=page.claim.queue_seconds),
            )
            self._inbox.put(lambda: page.set_end(end))

    def hand_back_all(self) -> None:
        """Write what is known of the jobs that have not ended, and put them back into the queue. Returns at once."""

        def leave() -> None:
            for page in self._pages.values():
                page.leaves = page.end is None

        self._inbox.put(leave)

    def _run(self) -> None:
        while True:
            self._inbox.get()()
            while not self._inbox.empty():
                self._inbox.get()()
            while not self._write_due():
                time.sleep(RETRY_SECONDS)

    def _take(self, updates: list[Update]) -> None:
        for update in updates:
            page = self._pages.get(update.sequence.id)
            if page is None or page.end is not None:
                continue
            page.text += update.text
            page.tokens += update.tokens
            page.logprobs += update.logprobs
            if update.outcome is not None:
                page.end = _end(page, update.sequence, update.outcome)

    def _write_due(self) -> bool:
        """Write every page that is due. False: Redis did not take it, try again."""
        now = time.monotonic()
        due = [page for page in list(self._pages.values()) if _is_due(page, now)]
        for page in due:
            page.compose()
        due = [page for page in due if page.unsent or page.end or page.leaves]
        if not due:
            return True
        try:
            self._write(due)
        except redis.RedisError as error:
            logger.warning("Redis does not take results (%s); kept, trying again", type(error).__name__)
            return False
        return True

    def _write(self, pages: Collection[_Page]) -> None:
        calls = [(page, arguments) for page in pages for arguments in self._calls(page)]
        verdicts = self._run_scripts(calls)
        sent = [page for page, _ in calls]
        fenced = {page.claim.job_id for page, verdict in zip(sent, verdicts, strict=True) if not verdict}
        for page in pages:
            page.written += page.unsent
            page.unsent = []
            page.written_at = time.monotonic()
            is_fenced = page.claim.job_id in fenced
            if page.leaves and not is_fenced:
                self._give_back(page.claim)
            if page.end is not None or page.leaves or is_fenced:
                self._close(page, is_fenced=is_fenced)

    def _run_scripts(self, calls: list[tuple[_Page, list[str | int]]]) -> list[Any]:
        """All calls of `publish.lua` in one round trip, and one hint for the jobs that go on."""
        going_on = dict.fromkeys(page.claim.job_id for page, _ in calls if page.end is None)
        if len(calls) == 1 and not going_on:  # a pipeline of one costs more than it saves
            page, arguments = calls[0]
            return [self._script.run(keys=self._keys(page), args=arguments)]
        if not calls:
            return []
        with self._redis.pipeline(transaction=False) as pipe:
            for page, arguments in calls:
                self._script.call(pipe, keys=self._keys(page), args=arguments)
            if going_on:  # the end of a job is hinted by the script
                pipe.publish(keys.HINTS_CHANNEL, ",".join(going_on))
            return self._script.execute(pipe)[: len(calls)]

    def _close(self, page: _Page, *, is_fenced: bool) -> None:
        self._pages.pop(page.claim.job_id, None)
        if is_fenced:
            logger.warning("job %s belongs to another worker now; its result here is dropped", page.claim.job_id)
            self._on_fenced(page.claim.job_id)
        page.closed.set()
        page.on_closed()

    def _keys(self, page: _Page) -> list[str]:
        job_id, model = page.claim.job_id, self._model
        return [keys.job(job_id), keys.events(job_id), keys.running(model), keys.ended(model), keys.service_time(model)]

    def _calls(self, page: _Page) -> list[list[str | int]]:
        """The arguments of `publish.lua`, one list per unsent delta; the last one carries the end."""
        head: list[str | int] = [page.claim.job_id, page.claim.token]
        deltas: list[list[str | int]] = [_delta_arguments(delta) for delta in page.unsent]
        if page.end is None:
            return [[*head, *delta, ""] for delta in deltas]
        last = deltas.pop() if deltas else ["", "[]", page.composed_tokens, page.composed_tokens]
        hint = [keys.HINTS_CHANNEL, ",".join(RECORD_FIELDS)]
        end = [_end_event(page.end), self._ttl_seconds, *hint, *_end_fields(page)]
        return [*([*head, *delta, ""] for delta in deltas), [*head, *last, *end]]


def _is_due(page: _Page, now: float) -> bool:
    return page.followed or page.end is not None or page.leaves or now - page.written_at >= UNFOLLOWED_SECONDS


def _delta_arguments(delta: _Delta) -> list[str | int]:
    data: dict[str, object] = {"text": delta.text}
    if delta.logprobs:
        data["logprobs"] = [asdict(entry) for entry in delta.logprobs]
    after = delta.tokens_before + len(delta.tokens)
    return [_json(data), _json(delta.tokens), delta.tokens_before, after]


def _end_event(end: _End) -> str:
    data: dict[str, object] = {
        "status": end.status,
        "finish_reason": end.finish_reason,
        "usage": asdict(end.usage),
        "error": None if end.error is None else asdict(end.error),
    }
    return _json({name: value for name, value in data.items() if value is not None})


def _end_fields(page: _Page) -> list[str]:
    """The outcome as field, value, field, value, ... of the job record."""
    end = page.end
    assert end is not None
    deltas = page.written + page.unsent
    logprobs = [entry for delta in deltas for entry in delta.logprobs]
    output = Output(
        text="".join(delta.text for delta in deltas),
        finish_reason=end.finish_reason,
        logprobs=logprobs or None,
        embeddings=end.embeddings,
    )
    fields = outcome_fields(end.status, output=output, usage=end.usage, metrics=end.metrics, error=end.error)
    return [part for pair in fields.items() for part in pair]


def _end(page: _Page, sequence: Sequence, outcome: Outcome) -> _End:
    claim = page.claim
    ended_at, first_at = sequence.ended_at or time.monotonic(), sequence.first_token_at
    first_token_seconds = page.first_token_seconds
    if first_token_seconds is None and first_at is not None:
        first_token_seconds = claim.queue_seconds + first_at - sequence.submitted_at
    decoded = sequence.new_tokens - 1
    decoding_seconds = ended_at - first_at if first_at else 0.0
    metrics = Metrics(
        queue_seconds=round(claim.queue_seconds, 6),
        time_to_first_token_seconds=None if first_token_seconds is None else round(first_token_seconds, 6),
        tokens_per_second=round(decoded / decoding_seconds, 3) if decoded > 0 and decoding_seconds > 0 else None,
    )
    return _End(
        status=outcome.status,
        finish_reason=outcome.finish_reason,
        usage=sequence.usage,
        metrics=metrics,
        error=outcome.error,
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
