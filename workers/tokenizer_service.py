"""Answers calls that make no job (`app.jobs.tokenizer_rpc`): that needs the tokenizer, no slot and no queue."""

import logging
import threading
from typing import Any

import redis

from app.jobs import tokenizer_rpc
from app.jobs.job import Chat
from app.jobs.redis_client import RedisClient
from app.jobs.tokenizer_rpc import TokenizerCall, TokenizerOperation
from workers.batching.sequence import job_error
from workers.engines.base import Engine

POLL_SECONDS = 0.5  # a worker that stops waits so long for this thread
RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


class TokenizerService:
    """One thread, from `start` to `stop`."""

    def __init__(self, client: RedisClient, model: str, engine: Engine) -> None:
        self._redis = client
        self._model = model
        self._engine = engine
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more questions; the engine may be closed then."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                question = tokenizer_rpc.next_question(self._redis, self._model, POLL_SECONDS)
                if question is not None and not question.is_stale:
                    self._answer(question)
            except redis.RedisError as error:
                logger.warning("no questions: no answer from Redis (%s)", type(error).__name__)
                self._stopping.wait(RETRY_SECONDS)

    def _answer(self, question: TokenizerCall) -> None:
        try:
            found = self._find(question)
        except Exception as error:  # a request's fault, or the tokenizer's: told to whoever asked
            failure = job_error(error)
            if failure.code == "engine_error":
                logger.error("a question was not answered", exc_info=error)
            tokenizer_rpc.answer(self._redis, question, error=failure)
        else:
            tokenizer_rpc.answer(self._redis, question, found)

    def _find(self, question: TokenizerCall) -> Any:
        about = question.about
        if question.subject is TokenizerOperation.DETOKENIZE:
            return self._engine.detokenize(about["tokens"])
        text = Chat(**about["chat"]) if "chat" in about else about["text"]
        return self._engine.tokenize(text, add_special=about["add_special"])
