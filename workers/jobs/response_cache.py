"""Which jobs ask for the same tokens, and the answers that are kept for those to come (`cache.ttl`).

A key is a digest of whoever asks (unless `cache.across_keys`), of the model as it is configured, and of all that
decides the tokens: what the client sent and what the engine has made of it. What is kept under it is no copy but the id
of the job that has the answer: it is forgotten with that job, and is as large as an id.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import redis

from app.config.settings import Config
from app.jobs import keys
from app.jobs.job import Job, Status
from app.jobs.record import RECORD_FIELDS, job_from_record
from app.jobs.redis_client import RedisClient
from app.jobs.store import Claim
from workers.engines.base import Prompt
from workers.jobs.publisher import Publisher

_HOW_IT_IS_RUN = frozenset(
    {"priority", "timeout_seconds", "expires_in_seconds", "ttl_seconds", "stream", "webhook", "response"}
)


class ResponseCache:
    """Of one worker. Any thread."""

    def __init__(self, client: RedisClient, config: Config, publisher: Publisher) -> None:
        self._redis = client
        self._cache = config.cache
        self._publisher = publisher
        setup = [config.model_name, config.model_family, config.setup_params, config.model_params]
        self._model = hashlib.sha256(_json(setup))

    def key(self, claim: Claim, prompt: Prompt | None) -> str | None:
        """Jobs with the same key have the same answer. prompt: None for texts to embed.

        None where the answer may be another each time; for texts to embed where no answers are kept; and for what goes
        on behind, or may be the reason of, another worker's end, which shall touch no other job.
        """
        joins = self._cache.ttl > 0 if prompt is None else prompt.is_deterministic
        if not joins or claim.losses or claim.published_tokens:
            return None
        asked = {name: value for name, value in claim.request.to_json().items() if name not in _HOW_IT_IS_RUN}
        digest = self._model.copy()
        scope = "" if self._cache.across_keys else claim.owner
        digest.update(_json([scope, asked, [] if prompt is None else prompt.tokens]))
        return digest.hexdigest()

    def is_answered(self, job_id: str, key: str) -> bool:
        """Whether a job of before answers this one too; else the answer of this one is kept."""
        if self._cache.ttl == 0:
            return False
        answered = self._kept(key)
        if answered is not None:
            self._publisher.repeat(job_id, answered)
        else:
            self._publisher.keep_under(job_id, key)
        return answered is not None

    def keep(self, answers: Mapping[str, str]) -> None:
        """The ids of jobs that have succeeded, or are about to, by their keys."""
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
    """The order of names counts: a JSON schema says with it which comes first."""
    return json.dumps(value, separators=(",", ":"), default=str).encode()
