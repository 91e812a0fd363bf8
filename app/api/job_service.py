"""Submits jobs, follows, reads and cancels them, and makes their documents.

The routes use it, and the batch driver outside of any request: principal, idempotency key and socket are arguments.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.api.adapters import Adapters
from app.api.pending_jobs import Caller, PastEvents, PendingJobs
from app.api.queue_estimate import Capacity, QueueEstimate
from app.api.request_parser import invalid_request
from app.api.schemas.adapters import AdapterChoice
from app.api.schemas.job import JOB_ID, JobOptions, JobSchema, JobView
from app.api.waiting.waiters import Waiters
from app.api.webhooks.post import reject_unsendable
from app.config.settings import Config
from app.errors import Conflict, Forbidden, JobNotFound, NotAdmitted, NoWorker, PromptTooLong, ShuttingDown
from app.jobs.events import FROM_START, read_events
from app.jobs.job import AdapterUse, Job, JobRequest, Kind, OnDisconnect, Priority
from app.jobs.limits import with_max_tokens
from app.jobs.principal import ANONYMOUS_PRINCIPAL, Principal
from app.jobs.queue_positions import QueuePositions
from app.jobs.redis_client import RedisClient
from app.jobs.sharing import Sharing
from app.jobs.store import JobStore

LOOKED_AT_CHARACTERS = 65_536  # a shorter prompt costs Redis and a worker nothing to speak of
UNSTORED_TTL_SECONDS = 60  # of a job that could not be deleted at the end of its request: its process died, say
_JOB_SCHEMA = JobSchema()
_OBSERVER = Caller(principal=ANONYMOUS_PRINCIPAL)  # waits for a job that exists, and makes none


class JobService:
    """The jobs of one model's service: how callers make them, wait for them and read them."""

    def __init__(
        self,
        config: Config,
        client: RedisClient,
        store: JobStore,
        waiters: Waiters,
        estimate: QueueEstimate,
        adapters: Adapters,
    ) -> None:
        self.config = config
        self.adapters = adapters
        self.store = store
        self.waiters = waiters
        self.estimate = estimate
        self._redis = client
        self._positions = QueuePositions(client, Sharing.of(config.jobs))

    def make_request(
        self, kind: Kind, options: JobOptions, principal: Principal, *, adapters: tuple[AdapterUse, ...], **content: Any
    ) -> JobRequest:
        """Return the request of a job.

        Args:
            options: how the job is run. Its time is limited by `jobs.timeout`.
            adapters: from `Adapters.chosen`, which knows what the API key may ask for.
            content: the other fields of `JobRequest`.

        Raises:
            InvalidRequest: the webhook cannot be sent.
            Forbidden: the API key may not ask for the priority.
        """
        if options.webhook is not None:
            reject_unsendable(options.webhook, self.config.webhooks)
        longest = float(self.config.jobs.timeout)
        start = options.not_before
        ttl = options.ttl if options.store else UNSTORED_TTL_SECONDS
        return JobRequest(
            kind=kind,
            priority=_priority(options.priority, principal),
            timeout_seconds=longest if options.timeout is None else min(options.timeout, longest),
            expires_in_seconds=options.expires_in,
            not_before=None if start is None else start.at,
            delay_seconds=None if start is None else start.delay_seconds,
            ttl_seconds=ttl,
            webhook=options.webhook,
            stored=options.store,
            cache_salt=options.cache_salt,
            adapters=adapters,
            **content,
        )

    def submit(
        self,
        request: JobRequest,
        principal: Principal,
        key: str | None = None,
        job_id: str | None = None,
        listener: str = "",
    ) -> Job:
        """Admit a job, without waiting for it.

        Args:
            key: the idempotency key, None without one.
            job_id: the id that a new job gets, from `new_job_id`; None: a new one.
            listener: the channel of the process that waits for it; "" where none does.

        Returns:
            The job. If the key was used before, this is that earlier job; its id differs from `job_id`.

        Raises:
            PromptTooLong: so much longer than the context that no tokenizer is needed to say so.
            InvalidRequest: it asks for more tokens than its API key allows.
            QueueFull, NoWorker, RateLimited: with `retry_after_seconds`.
            Conflict: the key has been used for another request.
        """
        if len(request.prompt) > LOOKED_AT_CHARACTERS:
            _reject_too_long(request.prompt, self.estimate.capacity())
        request = with_max_tokens(request, principal.max_tokens)
        try:
            return self.store.admit(request, principal, job_id, idempotency_key=key, listener=listener)
        except NotAdmitted as error:
            if error.retry_after_seconds is None:
                error.retry_after_seconds = self.estimate.retry_after_seconds(error.waiting)
            raise

    def begin_waiting(self, caller: Caller, on_disconnect: OnDisconnect | None, *, with_events: bool) -> PendingJobs:
        """Begin a request that waits for the jobs it is going to submit.

        Args:
            on_disconnect: None cancels the jobs of a client that leaves, unless it can return with its idempotency key.
            with_events: wait for all events of the jobs, not only for their ends.

        Raises:
            TooManyWaiters, ShuttingDown
        """
        cancels = caller.idempotency_key is None if on_disconnect is None else on_disconnect is OnDisconnect.CANCEL
        return self._pending(caller, FROM_START if with_events else None, cancels=cancels)

    def follow(self, job: Job, after: str = FROM_START) -> PendingJobs | PastEvents:
        """Begin to wait for the events of an existing job that come after the event `after`.

        Raises TooManyWaiters, ShuttingDown.
        """
        if job.status.is_final:
            (entries,) = read_events(self._redis, [(job.id, after)])
            return PastEvents(job, entries)
        with contextlib.ExitStack() as resources:
            pending = resources.enter_context(self._pending(_OBSERVER, after))
            pending.join(job)
            resources.pop_all()
        return pending

    def wait(self, job: Job, seconds: float) -> Job:
        """Return the job once it has ended; as it is after `seconds`, when this process shuts down or no worker comes.

        Raises JobNotFound, TooManyWaiters.
        """
        with contextlib.suppress(ShuttingDown, NoWorker), self._pending(_OBSERVER, None) as pending:
            pending.join(job)
            item = pending.next_end(seconds)
            if item is not None:
                return item[1]
        return self.store.read(job.id)

    def read(self, job_id: str, owner: str | None) -> Job:
        """Return a job of this owner; None: of any. Raises InvalidRequest (it is no id), JobNotFound."""
        if not JOB_ID.fullmatch(job_id):
            raise invalid_request({"job_id": ["Must be a job id: a UUID such as POST /agenerate returns."]})
        job = self.store.read(job_id.lower())
        if owner not in (None, job.owner):
            raise JobNotFound(f"no job has the id {job_id!r}: it never was, or its time to live has passed")
        return job

    def cancel(self, job: Job) -> Job:
        """Cancel a job, and return it as it is then: a worker ends a running one within a step. Raises JobNotFound."""
        self.store.cancel(job.id)
        return self.store.read(job.id)

    def change_priority(self, job: Job, priority: Priority, principal: Principal) -> Job:
        """Change the priority of a job that waits, and return the job as it is then.

        Args:
            principal: who asks for it; its API key bounds the priority, as it does for a new job.

        Raises:
            Forbidden: the API key may not ask for the priority.
            Conflict: the job does not wait any more.
            JobNotFound
        """
        self.store.change_priority(job.id, _priority(priority, principal))
        return self.store.read(job.id)

    def repeated_request(self, job: Job, principal: Principal) -> JobRequest:
        """Return the request of a job that has ended, for a new job with the priority that the job had at last.

        Raises:
            Conflict: it is not kept.
            ModelNotFound, InvalidRequest, Forbidden: the API key may no longer ask for it, or an adapter is gone.
        """
        try:
            request = self.store.read_request(job.id)
        except JobNotFound:
            raise Conflict("the request of this job is not kept, as it is longer than 16 KiB; send it again") from None
        choices = [AdapterChoice(use.name, use.scale) for use in request.adapters]
        adapters = self.adapters.chosen(None, choices, "lora", principal.models)
        return replace(request, response=None, adapters=adapters, priority=_priority(job.priority, principal))

    def document(self, job: Job) -> Mapping[str, Any]:
        """Return the job object of the HTTP API."""
        return self.documents([job])[0]

    def documents(self, jobs: Sequence[Job]) -> list[Mapping[str, Any]]:
        """Return the job objects of several jobs; their queue positions cost one round trip."""
        positions = self._positions.read(jobs)
        starts = self.estimate.start_times(jobs, positions)
        in_line = [None if position is None else position.jobs_ahead + 1 for position in positions]
        return [_JOB_SCHEMA.dump(JobView(*shown)) for shown in zip(jobs, in_line, starts, strict=True)]

    def _pending(self, caller: Caller, position: str | None, *, cancels: bool = False) -> PendingJobs:
        return PendingJobs(self.store, self.waiters, self.submit, self._most_at_once, caller, position, cancels=cancels)

    def _most_at_once(self) -> int:
        """Return how many jobs of one request may run at once: half of the slots; the others are for other clients."""
        return max(1, self.estimate.capacity().slots // 2)


def _priority(asked: Priority | None, principal: Principal) -> Priority:
    """Raises Forbidden."""
    highest = principal.max_priority
    if asked is None:
        return max(Priority.NORMAL, highest, key=lambda priority: priority.step)
    if asked.step < highest.step:
        reason = f"This API key may ask for {highest} at most, not {asked}; ask for that, or leave it out."
        raise Forbidden(f"priority: {reason}", errors={"priority": [reason]})
    return asked


def _reject_too_long(prompt: str, capacity: Capacity) -> None:
    """Raise PromptTooLong for a text that certainly has more tokens than the context of every worker.

    A worker finds out the same, after the text has gone through Redis.
    """
    if not capacity.token_bytes:
        return
    tokens = len(prompt.encode("utf-8", "replace")) // capacity.token_bytes
    if tokens > capacity.context_tokens:
        raise PromptTooLong.for_context(
            "prompt", tokens=tokens, context_tokens=capacity.context_tokens, is_at_least=True
        )
