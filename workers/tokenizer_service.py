"""Serves tokenizer calls (`app.jobs.tokenizer_rpc`): they make no job, and need the tokenizer but no slot."""

import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import redis

from app.jobs import tokenizer_rpc
from app.jobs.job import Chat
from app.jobs.redis_client import RedisClient
from app.jobs.tokenizer_rpc import TokenizerCall, TokenizerOperation
from workers.engines.runner import job_error

POLL_SECONDS = 1.0  # a worker that stops waits so long for these threads
RETRY_SECONDS = 0.5
THREADS = 4  # a long text takes seconds; the next call does not wait for it

logger = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """The part of a runner that this service uses."""

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...


class TokenizerService:
    """A few threads, from `start` to `stop`, of which one waits for the next call: the others serve one, or sleep.

    An engine bounds what one call may take (`Engine.tokenize`).
    """

    def __init__(self, client: RedisClient, model: str, tokenizer: Tokenizer) -> None:
        self._redis = client
        self._model = model
        self._tokenizer = tokenizer
        self._stopping = threading.Event()
        self._receiving = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"tokenizer-service-{number}", daemon=True)
            for number in range(THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more calls; the engine may be closed then."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._serve_next()
            except redis.RedisError as error:
                logger.warning("no tokenizer calls: no answer from Redis (%s)", type(error).__name__)
                self._stopping.wait(RETRY_SECONDS)

    def _serve_next(self) -> None:
        """Serve one call. A thread that waits holds none: it may have megabytes."""
        call = self._next_call()
        if call is not None and not call.is_stale:
            self._serve(call)

    def _next_call(self) -> TokenizerCall | None:
        """Wait for this thread's turn to wait, and for a call. None: the service stops."""
        with self._receiving:
            while not self._stopping.is_set():
                call = tokenizer_rpc.next_call(self._redis, self._model, POLL_SECONDS)
                if call is not None:
                    return call
        return None

    def _serve(self, call: TokenizerCall) -> None:
        try:
            result = self._result(call)
        except Exception as error:  # of the request or of the tokenizer: the caller gets it
            failure = job_error(error)
            if failure.code == "engine_error":
                logger.error("a tokenizer call failed", exc_info=error)
            tokenizer_rpc.reply(self._redis, call, error=failure)
        else:
            tokenizer_rpc.reply(self._redis, call, result)

    def _result(self, call: TokenizerCall) -> Any:
        arguments = call.arguments
        if call.operation is TokenizerOperation.DETOKENIZE:
            return self._tokenizer.detokenize(arguments["tokens"])
        text = Chat(**arguments["chat"]) if "chat" in arguments else arguments["text"]
        return self._tokenizer.tokenize(text, add_special=arguments["add_special"])
