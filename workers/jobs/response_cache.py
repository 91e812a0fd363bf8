"""The response cache: maps a request digest to the job that computed the response (`cache.ttl`).

The digest covers the scope (the tenant, unless `cache.across_keys`, and the request's salt), the model as it is
configured, and all that decides the tokens: what the client sent and the prompt's tokens. The cache holds the id of the
job, not a copy of the response: an entry has the size of an id and is void when the job is deleted.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import redis

from app.config.settings import Config
from app.jobs import keys
from app.jobs.events import Delta
from app.jobs.job import ANONYMOUS, Job, Output, OutputSource, Status, Usage
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim
from workers.engines.runner import Outcome, Report
from workers.jobs.running_jobs import RunningJob

_HOW_IT_IS_RUN = frozenset(
    {
        "priority",
        "timeout_seconds",
        "expires_in_seconds",
        "not_before",
        "delay_seconds",
        "ttl_seconds",
        "stream",
        "webhook",
        "response",
        "stored",
    }
)


class ResponseCache:
    """Thread-safe."""

    def __init__(self, client: RedisClient, config: Config) -> None:
        self._redis = client
        self._cache = config.cache
        setup = [config.model_name, config.model_family, config.setup_params, config.model_params]
        self._model = hashlib.sha256(_json(setup))

    def scope(self, claim: Claim) -> str:
        """Return within which scope a job shares computations (`RunnerJob.scope`): its tenant's, or everybody's.

        A salt of the request divides either one further.
        """
        scope = "" if self._cache.across_keys or claim.owner == ANONYMOUS else claim.tenant
        salt = claim.request.cache_salt
        return json.dumps([scope, salt]) if salt else scope

    def key(self, claim: Claim, prompt_tokens: Sequence[int]) -> str | None:
        """Return a key that only jobs with the same response share; prompt_tokens: empty for texts to embed.

        Returns None for a job that was running when a worker died.
        """
        if claim.losses or claim.published_tokens:
            return None
        decisive = {name: value for name, value in claim.request.to_json().items() if name not in _HOW_IT_IS_RUN}
        digest = self._model.copy()
        digest.update(_json([self.scope(claim), decisive, prompt_tokens]))
        return digest.hexdigest()

    def find_or_register(self, job: RunningJob, prompt_tokens: Sequence[int]) -> Report | None:
        """Return the cached response to a deterministic job. If there is none, have the job's own response cached."""
        key = self.key(job.claim, prompt_tokens) if self._cache.ttl else None
        if key is None:
            return None
        earlier = self._succeeded_job(key)
        if earlier is None:
            job.cache_key = key
            return None
        output, usage = earlier.output or Output(), earlier.usage or Usage()
        outcome = Outcome(
            status=Status.SUCCEEDED,
            finish_reason=output.finish_reason,
            usage=replace(usage, cached_tokens=usage.prompt_tokens),
            embeddings=output.embeddings,
            source=OutputSource.CACHED,
        )
        return Report(job, Delta(output.text, (), tuple(output.logprobs or ())), outcome)

    def keep(self, jobs: Mapping[str, str]) -> None:
        """Keep the ids of jobs that have succeeded, or are about to, by their keys."""
        with contextlib.suppress(redis.RedisError), self._redis.pipeline(transaction=False) as pipe:
            for key, job_id in jobs.items():
                pipe.set(keys.cached(key), job_id, ex=self._cache.ttl)
            pipe.execute()

    def _succeeded_job(self, key: str) -> Job | None:
        try:
            job_id = self._redis.get(keys.cached(key))
            record = self._redis.hmget(keys.job(job_id), RECORD_FIELDS) if job_id else None
        except redis.RedisError:
            return None
        job = None if record is None else job_from_record(record)
        return job if job is not None and job.status is Status.SUCCEEDED else None


def _json(value: Any) -> bytes:
    """Keep the order of names: in a JSON schema it is the order of the output."""
    return json.dumps(value, separators=(",", ":"), default=str).encode()
