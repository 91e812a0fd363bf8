"""Answers that are kept for the same request of later (`cache.ttl`), and what makes two requests the same.

A key is a digest of the client (unless `cache.across_keys`), of the model as it is configured, and of all that decides
the tokens: what the client sent and what the engine has made of it. What is kept under it is no copy but the id of the
job that has the answer: it is forgotten with that job, and is as large as an id.
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
from app.jobs.job import Job, Output, OutputSource, Status, Usage
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim
from workers.engines.runner import Outcome, Report
from workers.jobs.running_jobs import RunningJob

_HOW_IT_IS_RUN = frozenset(
    {"priority", "timeout_seconds", "expires_in_seconds", "ttl_seconds", "stream", "webhook", "response"}
)


class ResponseCache:
    """Of one worker. Any thread."""

    def __init__(self, client: RedisClient, config: Config) -> None:
        self._redis = client
        self._cache = config.cache
        setup = [config.model_name, config.model_family, config.setup_params, config.model_params]
        self._model = hashlib.sha256(_json(setup))

    def key(self, claim: Claim, prompt_tokens: Sequence[int]) -> str | None:
        """Return a key that only jobs with the same answer share; prompt_tokens: empty for texts to embed.

        None for a job that continues after, or may be the reason of, a worker's death: it must touch no other job.
        """
        if claim.losses or claim.published_tokens:
            return None
        decisive = {name: value for name, value in claim.request.to_json().items() if name not in _HOW_IT_IS_RUN}
        digest = self._model.copy()
        scope = "" if self._cache.across_keys else claim.owner
        digest.update(_json([scope, decisive, prompt_tokens]))
        return digest.hexdigest()

    def find(self, job: RunningJob, prompt_tokens: Sequence[int]) -> Report | None:
        """Return the kept answer to a deterministic job; without one, let the job's own answer be kept."""
        key = self.key(job.claim, prompt_tokens) if self._cache.ttl else None
        if key is None:
            return None
        answered = self._kept(key)
        if answered is None:
            job.cache_key = key
            return None
        output, usage = answered.output or Output(), answered.usage or Usage()
        outcome = Outcome(
            status=Status.SUCCEEDED,
            finish_reason=output.finish_reason,
            usage=replace(usage, cached_tokens=usage.prompt_tokens),
            embeddings=output.embeddings,
            source=OutputSource.CACHED,
        )
        return Report(job, Delta(output.text, (), tuple(output.logprobs or ())), outcome)

    def keep(self, answers: Mapping[str, str]) -> None:
        """Keep the ids of jobs that have succeeded, or are about to, by their keys."""
        with contextlib.suppress(redis.RedisError), self._redis.pipeline(transaction=False) as pipe:
            for key, job_id in answers.items():
                pipe.set(keys.cached(key), job_id, ex=self._cache.ttl)
            pipe.execute()

    def _kept(self, key: str) -> Job | None:
        try:
            job_id = self._redis.get(keys.cached(key))
            record = self._redis.hmget(keys.job(job_id), RECORD_FIELDS) if job_id else None
        except redis.RedisError:
            return None
        job = None if record is None else job_from_record(record)
        return job if job is not None and job.status is Status.SUCCEEDED else None


def _json(value: Any) -> bytes:
    """Keeps the order of names: in a JSON schema it decides which comes first."""
    return json.dumps(value, separators=(",", ":"), default=str).encode()
