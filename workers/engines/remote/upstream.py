"""The upstream server: one client, one thread with an event loop, in which all requests to it run."""

import asyncio
import logging
import math
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from typing import Any

import openai

from app.errors import ModelUnavailable
from app.jobs.job import Text
from workers.engines.remote.attempts import Attempts, Gate
from workers.engines.remote.failures import BrokenResponse, failure_of
from workers.engines.remote.params import RemoteSetupParams
from workers.engines.remote.stream_reader import token_count

CONNECT_SECONDS = 5.0
CHECK_SECONDS = 10.0
_NO_KEY = "none"  # where the server wants none; without any the package would look for one in the environment

logger = logging.getLogger(__name__)
for _name in ("openai", "httpx2", "httpcore2"):  # they would log each request
    logging.getLogger(_name).setLevel(logging.WARNING)

Embedded = tuple[list[float], int]


class Upstream:
    """One client of the server, one event loop for all requests to it, and the gate that they share.

    silence_seconds: without a byte; then a request counts as failed.
    """

    def __init__(self, setup: RemoteSetupParams, silence_seconds: float) -> None:
        self._model = setup.model
        self.client = openai.AsyncOpenAI(
            base_url=setup.base_url,
            api_key=setup.api_key or _NO_KEY,
            max_retries=0,
            timeout=openai.Timeout(silence_seconds, connect=min(CONNECT_SECONDS, silence_seconds)),
        )
        self.gate = Gate()
        self.events = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check the upstream server at the start, and log a problem in one line. An unreachable one may come back.

        Raises ModelUnavailable: it rejects the key, so waiting does not help.
        """
        try:
            names = self.spawn(self._model_names()).result()
        except openai.AuthenticationError:
            raise ModelUnavailable("the upstream server rejects the key: set setup_params.api_key") from None
        except Exception as error:
            reason = failure_of(error).error.detail if isinstance(error, openai.OpenAIError) else type(error).__name__
            logger.warning("the upstream server's models cannot be listed, jobs are tried all the same: %s", reason)
        else:
            if self._model not in names:
                logger.warning(
                    "the upstream server lists no model %r, jobs are tried all the same: see setup_params.model",
                    self._model,
                )

    async def embed(self, texts: Sequence[Text], seconds: float) -> list[Embedded]:
        """As `Engine.embed`; the first vector has the tokens of all, as upstream servers send no other number."""
        attempts = Attempts(self.gate, seconds)
        results: list[Embedded] = []
        for _, alike in groupby(texts, key=type):  # one request takes texts or tokens
            results += await attempts.until_success(partial(self._embed, list(alike)))
        return results

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine in this server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.events)

    def end_all(self) -> None:
        """Cancel all that runs in the event loop, and wait for it."""
        self.spawn(_end_all()).result()

    def close(self) -> None:
        """Cancel what still runs; it gets no outcome."""
        self.events.call_soon_threadsafe(self.events.stop)
        self._thread.join()

    async def _model_names(self) -> set[str]:
        page = await self.client.models.list(timeout=CHECK_SECONDS)
        return {model.id for model in page.data}

    async def _embed(self, texts: Sequence[Text]) -> list[Embedded]:
        inputs: Any = [text if isinstance(text, str) else list(text) for text in texts]
        response = await self.client.embeddings.create(model=self._model, input=inputs, encoding_format="float")
        try:
            rows = [_normalised(row.embedding) for row in sorted(response.data, key=lambda row: row.index)]
            tokens = (token_count(response.usage.prompt_tokens) if response.usage else 0) or 0
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise BrokenResponse("no vectors") from None
        if len(rows) != len(texts):
            raise BrokenResponse("another number of vectors")
        return [(row, 0 if index else tokens) for index, row in enumerate(rows)]

    def _run(self) -> None:
        asyncio.set_event_loop(self.events)
        try:
            self.events.run_forever()
        finally:
            self.events.run_until_complete(_end_all())
            self.events.run_until_complete(self.client.close())
            self.events.run_until_complete(self.events.shutdown_asyncgens())
            self.events.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _normalised(row: Sequence[float]) -> list[float]:
    length = math.hypot(*row)
    return [number / length for number in row] if length else list(row)
