"""The runner of the openai family: it forwards every job to another server, `worker.slots` of them at once."""

import asyncio
from collections.abc import Mapping, Sequence

from app.config.settings import Config
from app.errors import UnsupportedParameter
from app.jobs.job import Chat, JobRequest, Kind
from workers.engines.remote.forwarded_run import ForwardedRun
from workers.engines.remote.params import RemoteModelParams, RemoteSetupParams
from workers.engines.remote.requests import DEFAULT_MAX_TOKENS, RequestMaker
from workers.engines.remote.upstream import Upstream
from workers.engines.runner import Report, Runner, RunnerHost, RunnerJob, embedded
from workers.models.progress import ReportProgress

SLOTS = 32  # where worker.slots is auto: nothing here runs short, and the upstream server limits its own load


class RemoteRunner(Runner):
    """Only the upstream server knows the context of its model."""

    context_tokens = None
    default_params: Mapping[str, float] = {"max_tokens": DEFAULT_MAX_TOKENS}

    def __init__(self, config: Config, report: ReportProgress, host: RunnerHost) -> None:
        setup, params = RemoteSetupParams.read(config.setup_params), RemoteModelParams.read(config.model_params)
        self.slots = config.worker.slots or SLOTS
        self._host = host
        self._requests = RequestMaker(setup, params)
        self._upstream = Upstream(setup, params.silence_seconds)
        self._runs: set[ForwardedRun] = set()
        self._stopped = False
        report("asking the upstream server for its models", None)
        try:
            self._upstream.check()
        except BaseException:
            self._upstream.close()
            raise

    @classmethod
    def check(cls, config: Config) -> None:
        RemoteSetupParams.read(config.setup_params)
        RemoteModelParams.read(config.model_params)

    @property
    def running_count(self) -> int:
        return len(self._runs)

    def submit(self, job: RunnerJob) -> None:
        if self._stopped:
            return
        try:
            if job.request.kind is Kind.EMBED:
                self._upstream.spawn(self._embed(job))
            else:
                self._begin(job, job.request)
        except Exception as error:  # the request's fault
            self._host.fail(job, error)

    def submit_alone(self, job: RunnerJob, *, tokens: int | None) -> None:
        """Run a job beside the others. It cannot end this process, so it passes its trial at once."""
        self.submit(job)
        if tokens is not None:
            self._host.pass_trial(job)

    def cancel(self, job: RunnerJob) -> None:
        run = job.run  # read once: the job may end meanwhile
        if isinstance(run, ForwardedRun) and not self._stopped:
            self._upstream.events.call_soon_threadsafe(run.interrupt)

    def stop(self) -> None:
        self._stopped = True
        self._upstream.end_all()

    def close(self) -> None:
        self._stopped = True
        self._upstream.close()

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        raise UnsupportedParameter("this model shows no tokens")

    def detokenize(self, tokens: Sequence[int]) -> str:
        raise UnsupportedParameter("this model shows no tokens")

    def _begin(self, job: RunnerJob, request: JobRequest) -> None:
        job.run = run = ForwardedRun(job, self._requests.make(request, job.scope), self._upstream, self._host)
        self._runs.add(run)
        self._upstream.spawn(self._run(run))

    async def _run(self, run: ForwardedRun) -> None:
        try:
            await run.run()
        finally:
            self._runs.discard(run)

    async def _embed(self, job: RunnerJob) -> None:
        try:
            results = await self._upstream.embed(job.request.texts, job.timeout_seconds)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._host.fail(job, error)
        else:
            self._host.report([Report(job, None, embedded(results))])
