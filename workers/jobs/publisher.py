"""Carries what the batch loop produces to Redis: deltas to event streams, outcomes to job records, hints to the API.

One thread, one call of Redis per round for all sequences. A job whose stream somebody follows is written at every step;
the others every `UNFOLLOWED_SECONDS`, so that another worker could continue them, and at their end. While Redis is gone
everything is kept and sent again: each delta is written once, however often it is sent.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import redis

from app.jobs.events import Published
from app.jobs.job import AnswerSource, FinishReason, Job, JobError, Metrics, Output, Status, Usage
from app.jobs.publishing import FENCED, MISSING, OutputWriter
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim
from workers.batching.sequence import Update
from workers.jobs.job_output import End, JobOutput, end_of, outputs_of

UNFOLLOWED_SECONDS = 0.5
GATHERING_SECONDS = 0.1  # while nobody follows: each waking of this thread is felt by the one that decodes
FIRST_TEXT_SECONDS = 0.001  # once in the life of a job that is followed
RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Publisher:
    """on_fenced: called with the id of a job that was lost while it ran here; its sequence should end. Until it has
    ended the job is still in hand: this worker may be the one that claims it next, and two attempts must not mix.

    give_back: puts a job back into the queue (`JobStore.hand_back`). keep: hears the ids of jobs about to succeed, by
    their keys.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        model: str,
        ttl_seconds: int,
        on_fenced: Callable[[str], None],
        give_back: Callable[[Claim], object],
        keep: Callable[[Mapping[str, str]], object] = lambda _: None,
    ) -> None:
        self._writer = OutputWriter(client, model=model, ttl_seconds=ttl_seconds)
        self._on_fenced = on_fenced
        self._give_back = give_back
        self._keep = keep
        self._pages: dict[str, JobOutput] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._updates: deque[Update] = deque()
        self._gathered_at = 0.0
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    def open(
        self, claim: Claim, on_closed: Callable[[], None] = lambda: None, published: Published | None = None
    ) -> threading.Event:
        """Begin a job, or go on with one of which something is `published`; when its outcome is written, or another
        worker's to write, the event is set and `on_closed` called, from the publisher's thread.
        """
        page = JobOutput(claim, claim.followed, written_at=time.monotonic(), on_closed=on_closed)
        if published is not None:
            page.take_over(published)
        self._pages[claim.job_id] = page
        return page.closed

    def follow(self, job_id: str) -> None:
        """Write this job's deltas as they come from now on."""
        page = self._pages.get(job_id)
        if page is not None:
            page.followed = True
            self._inbox.put(_nothing)

    def publish(self, updates: list[Update]) -> None:
        """Take what a step brought, and wake the publisher's thread where it has to write.

        Returns at once, but behind a first text that somebody waits for: that gets the interpreter and a CPU first.
        """
        self._updates.extend(updates)
        now = time.monotonic()
        if now - self._gathered_at >= GATHERING_SECONDS or any(map(self._is_urgent, updates)):
            self._gathered_at = now
            self._inbox.put(_nothing)
        if any(map(self._is_first_text, updates)):
            time.sleep(FIRST_TEXT_SECONDS)

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
        end = End(
            status=Status.FAILED if failed else Status.SUCCEEDED,
            finish_reason=FinishReason.ERROR if failed else None,
            usage=usage or Usage(),
            metrics=Metrics(source=None if failed else AnswerSource.COMPUTED, queue_seconds=page.claim.queue_seconds),
            error=error,
            embeddings=embeddings,
        )

        self._inbox.put(lambda: page.set_end(end))

    def keep_under(self, job_id: str, key: str) -> None:
        """Should this job succeed, `keep` shall hear of it."""
        page = self._pages.get(job_id)
        if page is not None:
            page.key = key

    def repeat(self, job_id: str, answered: Job) -> None:
        """End a job with the answer to the same request of an earlier one."""
        page = self._pages.get(job_id)
        if page is None:
            return
        said, used = answered.output or Output(), answered.usage or Usage()

        def repeat() -> None:
            if page.end is not None:
                return
            page.text, page.logprobs = said.text, list(said.logprobs or ())
            page.set_end(
                End(
                    status=Status.SUCCEEDED,
                    finish_reason=said.finish_reason,
                    usage=replace(used, cached_tokens=used.prompt_tokens),
                    metrics=Metrics(source=AnswerSource.CACHED, queue_seconds=page.claim.queue_seconds),
                    embeddings=said.embeddings,
                )
            )

        self._inbox.put(repeat)

    def cancel(self, job_id: str) -> None:
        """End a job that is not a sequence yet, or never will be. What has been published of it stays."""
        page = self._pages.get(job_id)
        if page is not None:
            end = End(
                status=Status.CANCELED,
                finish_reason=FinishReason.CANCELED,
                usage=Usage(completion_tokens=page.composed_tokens),
                metrics=Metrics(queue_seconds=page.claim.queue_seconds),
            )
            self._inbox.put(lambda: page.set_end(end))

    def hand_back_all(self) -> None:
        """Write what is known of the jobs that have not ended, and put them back into the queue. Returns at once."""

        def leave() -> None:
            for page in list(self._pages.values()):  # another thread may open one meanwhile
                page.leaves = page.end is None

        self._inbox.put(leave)

    def _run(self) -> None:
        while True:
            self._obey(self._inbox.get())
            while not self._inbox.empty():
                self._obey(self._inbox.get())
            while not self._write_due():
                time.sleep(RETRY_SECONDS)

    def _obey(self, command: Callable[[], None]) -> None:
        self._take_updates()
        command()

    def _is_urgent(self, update: Update) -> bool:
        page = self._pages.get(update.sequence.id)
        return update.outcome is not None or (page is not None and page.followed)

    def _is_first_text(self, update: Update) -> bool:
        page = self._pages.get(update.sequence.id)
        return page is not None and page.followed and page.composed_tokens == 0 and bool(update.text)

    def _take_updates(self) -> None:
        while self._updates:
            update = self._updates.popleft()
            page = self._pages.get(update.sequence.id)
            if page is None or page.end is not None:
                continue
            page.text += update.text
            page.tokens += update.tokens
            page.logprobs += update.logprobs
            if update.outcome is not None:
                page.end = end_of(page, update.sequence, update.outcome)

    def _write_due(self) -> bool:
        """Write every page that is due. False: Redis did not take it, try again."""
        now = time.monotonic()
        due = [page for page in list(self._pages.values()) if _is_due(page, now)]
        for page in due:
            page.compose()
        due = [page for page in due if page.unsent or page.end or page.leaves]
        if not due:
            return True
        first = [page for page in due if page.brings_first_text]  # somebody waits for it: it is not kept by the others
        rest = [page for page in due if not page.brings_first_text]
        try:
            return all(self._write(pages) for pages in (first, rest) if pages)
        except redis.RedisError as error:
            logger.warning("Redis does not take results (%s); kept, trying again", type(error).__name__)
            return False

    def _write(self, pages: Collection[JobOutput]) -> bool:
        """False: Redis lacks what it had confirmed before, as after its host went down; all of it is due again."""
        answers = {page.key: page.claim.job_id for page in pages if page.key and _succeeds(page)}
        if answers:
            self._keep(answers)
        outputs = [(page, output) for page in pages for output in outputs_of(page)]
        verdicts: dict[JobOutput, set[int]] = {page: set() for page in pages}
        if outputs:
            told = self._writer.write([output for _, output in outputs])
            for (page, _), verdict in zip(outputs, told, strict=True):
                verdicts[page].add(verdict)
        for page, found in verdicts.items():
            page.written += page.unsent
            page.unsent = []
            page.written_at = time.monotonic()
            is_fenced = FENCED in found
            if MISSING in found:
                page.rewind()
                continue
            if page.leaves and not is_fenced:
                self._give_back(page.claim)
            if page.end is not None or page.leaves:
                self._close(page, is_fenced=is_fenced)
            elif is_fenced:
                self._on_fenced(page.claim.job_id)
        return not any(MISSING in found for found in verdicts.values())

    def _close(self, page: JobOutput, *, is_fenced: bool) -> None:
        self._pages.pop(page.claim.job_id, None)
        if is_fenced:
            logger.warning("job %s belongs to another worker now; its result here is dropped", page.claim.job_id)
        page.closed.set()
        page.on_closed()


def _succeeds(page: JobOutput) -> bool:
    return page.end is not None and page.end.status is Status.SUCCEEDED


def _nothing() -> None:
    """As a command: look at the updates."""


def _is_due(page: JobOutput, now: float) -> bool:
    return page.followed or page.end is not None or page.leaves or now - page.written_at >= UNFOLLOWED_SECONDS
