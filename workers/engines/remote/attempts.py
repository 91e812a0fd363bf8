"""Attempts at one upstream request, until one succeeds, another makes no sense, or the job's time is over."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import openai

from app.errors import LLMAPIError, UpstreamBusy
from workers.engines.remote.failures import BrokenResponse, Failure, failure_of, pause_seconds

MOST_SPREAD_SECONDS = 1.0

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Gate:
    """Shared by all requests to one server: closed for as long as its `Retry-After` says."""

    def __init__(self) -> None:
        self._opens_at = 0.0

    def close(self, seconds: float) -> None:
        self._opens_at = max(self._opens_at, time.monotonic() + seconds)

    @property
    def wait_seconds(self) -> float:
        """Seconds until it opens; spread, so that not all requests pass at once."""
        left = self._opens_at - time.monotonic()
        return left + random.uniform(0.0, min(MOST_SPREAD_SECONDS, left)) if left > 0 else 0.0


class Attempts:
    """failures: attempts in a row without any output. seconds: time for all attempts together."""

    def __init__(self, gate: Gate, seconds: float) -> None:
        self.failures = 0
        self._gate = gate
        self._deadline = time.monotonic() + seconds

    async def until_success(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat `attempt` until it succeeds. Raises the error that the client gets for the last failure."""
        failure: Failure | None = None
        while True:
            await self._pause(failure)
            try:
                return await attempt()
            except (openai.OpenAIError, BrokenResponse) as error:
                failure = failure_of(error)
            self.failures += 1
            if failure.after_seconds is not None:
                self._gate.close(failure.after_seconds)
            if self.failures >= failure.again.value:
                raise failure.error
            logger.info("%s; trying again", failure.error.detail)

    async def _pause(self, failure: Failure | None) -> None:
        seconds = 0.0 if failure is None else pause_seconds(self.failures, failure.after_seconds)
        seconds = max(seconds, self._gate.wait_seconds)
        if time.monotonic() + seconds > self._deadline:
            raise _out_of_time() if failure is None else failure.error
        await asyncio.sleep(seconds)


def _out_of_time() -> LLMAPIError:
    return UpstreamBusy("the upstream server asks to wait for longer than this job has time; try again later")
