"""The engine of the openai family: every prompt is answered elsewhere, `worker.slots` of them at once."""

from collections.abc import Sequence
from typing import Never

from app.config.settings import Config
from app.jobs.job import JobRequest, Text
from app.jobs.sampling import SamplingParams
from workers.engines.base import Chunk, Engine, Limits, Prompt, Sampled, Stop, Tell
from workers.engines.remote.params import RemoteModelParams, RemoteSetupParams
from workers.engines.remote.requests import RequestMaker, UpstreamRequest
from workers.engines.remote.upstream import Upstream
from workers.models.progress import ReportProgress

SLOTS = 32  # where worker.slots is auto: nothing here runs short, and the upstream server says when it does
_TOKENS_OF_NOBODY = [0]
_BOUNDED_ELSEWHERE = SamplingParams(max_tokens=2**62)


class OpenAIEngine(Engine):
    embedding_calls = 4

    def __init__(self, config: Config, report: ReportProgress) -> None:
        setup, params = RemoteSetupParams.read(config.setup_params), RemoteModelParams.read(config.model_params)
        self._slots = config.worker.slots or SLOTS
        self._embedding_seconds = float(config.jobs.timeout)
        self._requests = RequestMaker(setup, params)
        self._upstream = Upstream(setup, params.silence_seconds)
        report("asking the upstream server for its models", None)
        try:
            self._upstream.check()
        except BaseException:
            self._upstream.close()
            raise

    @property
    def limits(self) -> Limits:
        """context_tokens 0: only the upstream server knows."""
        return Limits(slots=self._slots, context_tokens=0, max_batched_tokens=self._slots)

    def prepare(self, request: JobRequest) -> Prompt:
        made = self._requests.make(request)
        return Prompt(tokens=_TOKENS_OF_NOBODY, sampling=_BOUNDED_ELSEWHERE, state=made, elsewhere=True)

    def forward(self, prompt: Prompt, generated: Sequence[int], so_far: str, seconds: float, tell: Tell) -> Stop:
        request: UpstreamRequest = prompt.state
        return self._upstream.answer(request, so_far, len(generated), seconds, tell)

    def embed(self, texts: Sequence[Text]) -> list[tuple[list[float], int]]:
        return self._upstream.embed(texts, self._embedding_seconds)

    def close(self) -> None:
        self._upstream.close()

    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        _nothing_runs_here()

    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        _nothing_runs_here()


def _nothing_runs_here() -> Never:
    raise AssertionError("every prompt of this family is answered elsewhere")  # pragma: no cover
