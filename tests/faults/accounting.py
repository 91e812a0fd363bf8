"""Compare what clients received with what Redis holds: every accepted job, every stream, every end."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from app.jobs.job import Status
from tests.engines.counting import voiceless
from tests.faults.accepted_jobs import AcceptedJob, accepted_jobs
from tests.faults.client import ClientRequest, ClientView, Way
from tests.faults.service import Hostages, Service
from tests.faults.settlement import unsettled


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The results of a scenario. The figures count jobs unless stated otherwise.

    worker_lost: failed for that reason. lost: accepted, and without an end or without a record. duplicated: with more
    than one end, or made twice for one request. wrong: wrong texts, usages, streams and ends. unanswered: clients that
    never received an end. ended_processes: processes that ended and should not have. unsettled: jobs that the
    ledger does not count as their records say.

    continued: streams that a second worker continued after text of a first. resumed: streams read to their end
    on more than one connection. hostages: run by a worker when it was lost. takeover_seconds: from then until the last
    of them was claimed again. fenced: jobs whose late writes were refused. deaths: of workers. refused:
    requests answered with 503 and Retry-After. new_keys, new_bytes: added to Redis between the beginning and the end.

    notes: descriptions of what is wrong.
    """

    accepted: int = 0
    succeeded: int = 0
    failed: int = 0
    worker_lost: int = 0
    canceled: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    unanswered: int = 0
    ended_processes: int = 0
    unsettled: int = 0
    continued: int = 0
    resumed: int = 0
    hostages: int = 0
    takeover_seconds: float = 0.0
    fenced: int = 0
    deaths: int = 0
    refused: int = 0
    new_keys: int = 0
    new_bytes: int = 0
    notes: tuple[str, ...] = ()


def account(service: Service, clients: Iterable[ClientView]) -> Counts:
    """Count the results of a load whose clients have received the end or given up."""
    jobs, views = accepted_jobs(service), list(clients)
    by_prompt = {job.prompt: job for job in jobs.values()}
    statuses = Counter(job.record.status for job in jobs.values())
    missing = {job_id for view in views for job_id in view.job_ids} - set(jobs)
    unended = [job_id for job_id, job in jobs.items() if not job.record.status.is_final]
    ended_twice = [job_id for job_id, job in jobs.items() if len(job.ends) > 1]
    unanswered = [view.request.prompt for view in views if not view.ends]
    faults = [fault for view in views for fault in _faults(view, by_prompt.get(view.request.prompt))]
    unsettled_jobs = unsettled(service)
    streams = [view for view in views if view.request.way.streams and view.request.prompt in by_prompt]
    return Counts(
        accepted=len(jobs),
        succeeded=statuses[Status.SUCCEEDED],
        failed=statuses[Status.FAILED],
        worker_lost=sum(
            job.record.error is not None and job.record.error.code == "worker_lost" for job in jobs.values()
        ),
        canceled=statuses[Status.CANCELED],
        lost=len(missing) + len(unended),
        duplicated=len(ended_twice) + len(jobs) - len(by_prompt),
        wrong=len(faults),
        unanswered=len(unanswered),
        ended_processes=service.ended_processes(),
        unsettled=len(unsettled_jobs),
        continued=sum(by_prompt[view.request.prompt].is_continued for view in streams),
        resumed=sum(bool(view.breaks and view.ends) for view in streams),
        notes=(
            *(f"no record: {job_id}" for job_id in missing),
            *(f"no end: {job_id} ({jobs[job_id].record.status})" for job_id in unended),
            *(f"two ends: {job_id}" for job_id in ended_twice),
            *(f"no answer: {prompt}" for prompt in unanswered),
            *faults,
            *unsettled_jobs,
        ),
    )


def with_takeover(counts: Counts, service: Service, hostages: Hostages) -> Counts:
    """Add to the counts how long it took until the jobs of a lost worker were claimed again."""
    jobs = accepted_jobs(service)
    claims = [jobs[job.job_id].claimed_again_at(job.attempt) for job in hostages.jobs]
    seconds = max(claims) - hostages.lost_at
    return replace(counts, hostages=len(claims), takeover_seconds=round(seconds, 1))


def _faults(view: ClientView, job: AcceptedJob | None) -> Iterator[str]:
    """Yield a sentence for each fault of a job or of what its client received."""
    prompt, request = view.request.prompt, view.request
    yield from (f"{prompt}: {defect}" for defect in view.defects)
    if job is None or not job.record.status.is_final:
        return
    if job.published != job.text:
        yield f"{prompt}: the stream has {job.published!r}, the record {job.text!r}"
    if not _is_right(job, request):
        yield f"{prompt}: {job.record.status} with {job.text!r}"
    if job.record.usage and job.record.usage.completion_tokens != _tokens(job, request):
        yield f"{prompt}: {job.record.usage} for {job.text!r}"
    if job.ends != [job.record.status] and len(job.ends) < 2:
        yield f"{prompt}: {job.record.status}, and its stream ends with {job.ends}"
    if view.ends not in ([], [job.record.status]):
        yield f"{prompt}: {job.record.status}, and its client received {view.ends}"
    if view.ends and view.text != job.text and _receives_text(view):
        yield f"{prompt}: the client has {view.text!r} of {job.text!r}"


def _is_right(job: AcceptedJob, request: ClientRequest) -> bool:
    """Return whether a successful job has the whole text, and any other job a beginning of it, from any workers."""
    text, expected = voiceless(job.text), voiceless(request.text)
    return text == expected if job.record.status is Status.SUCCEEDED else expected.startswith(text)


def _tokens(job: AcceptedJob, request: ClientRequest) -> int:
    return request.tokens if job.record.status is Status.SUCCEEDED else job.text.count(" ")


def _receives_text(view: ClientView) -> bool:
    """Return whether the client must have the text.

    A failed /generate receives the reason and no text; a text stream may fail before its first piece.
    """
    return view.ends == ["succeeded"] or view.request.way not in (Way.GENERATE, Way.TEXT_STREAM)
