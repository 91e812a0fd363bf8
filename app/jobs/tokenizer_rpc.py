"""TokenizerClient that any worker of a model answers beside its jobs, at once and without a slot: a text's tokens, say.

A question waits in a list until a worker takes it; the answer comes through a list of its own. Nothing is kept of
either, and a question whose worker dies is never answered: whoever wants to know asks again.
"""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from app.errors import NoWorker, error_from_code
from app.jobs import keys
from app.jobs.job import JobError
from app.jobs.redis_client import RedisClient

ANSWER_SECONDS = 10.0  # to wait for an answer; then the worker is loading, or gone
KEPT_SECONDS = 30  # of what nobody takes
BLOCKED_SECONDS = 2.0  # in one command, below the client's own time-out


class TokenizerOperation(StrEnum):
    TOKENIZE = "tokenize"  # {"text" or "chat", "add_special"} -> [token, ...]
    DETOKENIZE = "detokenize"  # {"tokens"} -> text


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerCall:
    """asked_at: Unix seconds of the asker."""

    id: str
    subject: TokenizerOperation
    about: dict[str, Any]
    asked_at: float

    @property
    def is_stale(self) -> bool:
        """Nobody waits for the answer any more."""
        return time.time() - self.asked_at > KEPT_SECONDS


class TokenizerClient:
    """The asking side. client: for this alone, as each asker blocks a connection."""

    def __init__(self, client: RedisClient, model: str) -> None:
        self._redis = client
        self._model = model

    def ask(self, subject: TokenizerOperation, about: Mapping[str, Any]) -> Any:
        """What a worker answers. Raises NoWorker, and the error that the worker found."""
        if not self._redis.exists(keys.alive(self._model)):
            raise NoWorker(f"no worker serves {self._model!r}; start one and try again", retry_after_seconds=5)
        question_id = uuid.uuid4().hex
        asked = {"id": question_id, "subject": subject, "about": about, "asked_at": time.time()}
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lpush(keys.questions(self._model), json.dumps(asked))
            pipe.expire(keys.questions(self._model), KEPT_SECONDS)
            pipe.execute()
        answer = self._wait(question_id)
        if answer.get("error"):
            error = JobError(**answer["error"])
            raise error_from_code(error.code, error.message, error.errors)
        return answer["answer"]

    def _wait(self, question_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            found = self._redis.brpop([keys.answer(question_id)], timeout=BLOCKED_SECONDS)
            if found is not None:
                answer: dict[str, Any] = json.loads(found[1])
                return answer
        raise NoWorker("no worker has answered: the model still loads, or its worker is gone", retry_after_seconds=5)


def next_question(client: RedisClient, model: str, seconds: float) -> TokenizerCall | None:
    """For a worker: the oldest question, or None when none came for so long."""
    found = client.brpop([keys.questions(model)], timeout=seconds)
    if found is None:
        return None
    asked = json.loads(found[1])
    return TokenizerCall(**{**asked, "subject": TokenizerOperation(asked["subject"])})


def answer(client: RedisClient, question: TokenizerCall, found: Any = None, error: JobError | None = None) -> None:
    said = {"answer": found} if error is None else {"error": asdict(error)}
    with client.pipeline(transaction=False) as pipe:
        pipe.lpush(keys.answer(question.id), json.dumps(said))
        pipe.expire(keys.answer(question.id), KEPT_SECONDS)
        pipe.execute()
