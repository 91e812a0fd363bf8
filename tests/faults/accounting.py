"""What clients were told against what stands in Redis: every accepted job, every stream, every end."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from app.jobs.job import Status
from tests.engines.counting import voiceless
from tests.faults.client import Asked, Told, Way
from tests.faults.found import Found, find_jobs
from tests.faults.service import Hostages, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a fault has left behind; of jobs, unless it says otherwise.

    worker_lost: failed for that reason. lost: accepted, and without an end or without a record. duplicated: with more
    than one end, or made twice for one request. wrong: texts, usages, streams and ends told that are not as they should
    be. unanswered: clients never told an end. ended_processes: which should not have.

    continued: streams that a second worker went on with after text of a first. resumed: streams read to their end
    on more than one connection. hostages: run by a worker when it was lost. takeover_seconds: from then until the last
    of them was claimed again. fenced: those whose late writes were refused. deaths: of workers, by themselves. refused:
    requests answered with 503 and Retry-After. new_keys, new_bytes: in Redis at the end, more than at the beginning.

    notes: what is wrong, in words.
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


def account(service: Service, clients: Iterable[Told]) -> Counts:
    """The counts of a load whose clients have been told the end, or have given up."""
    jobs, told = find_jobs(service), list(clients)
    by_prompt = {job.prompt: job for job in jobs.values()}
    statuses = Counter(job.job.status for job in jobs.values())
    missing = {job_id for one in told for job_id in one.job_ids} - set(jobs)
    unended = [job_id for job_id, job in jobs.items() if not job.job.status.is_final]
    ended_twice = [job_id for job_id, job in jobs.items() if len(job.ends) > 1]
    unanswered = [one.asked.prompt for one in told if not one.ends]
    faults = [fault for one in told for fault in _faults(one, by_prompt.get(one.asked.prompt))]
    streams = [one for one in told if one.asked.way.streams and one.asked.prompt in by_prompt]
    return Counts(
        accepted=len(jobs),
        succeeded=statuses[Status.SUCCEEDED],
        failed=statuses[Status.FAILED],
        worker_lost=sum(job.job.error is not None and job.job.error.code == "worker_lost" for job in jobs.values()),
        canceled=statuses[Status.CANCELED],
        lost=len(missing) + len(unended),
        duplicated=len(ended_twice) + len(jobs) - len(by_prompt),
        wrong=len(faults),
        unanswered=len(unanswered),
        ended_processes=service.ended_processes(),
        continued=sum(by_prompt[one.asked.prompt].is_continued for one in streams),
        resumed=sum(bool(one.breaks and one.ends) for one in streams),
        notes=(
            *(f"no record: {job_id}" for job_id in missing),
            *(f"no end: {job_id} ({jobs[job_id].job.status})" for job_id in unended),
            *(f"two ends: {job_id}" for job_id in ended_twice),
            *(f"never told: {prompt}" for prompt in unanswered),
            *faults,
        ),
    )


def with_takeover(counts: Counts, service: Service, hostages: Hostages) -> Counts:
    """The counts, and how long it took until what a lost worker ran was claimed again."""
    jobs = find_jobs(service)
    claims = [jobs[job.job_id].claimed_again_at(job.attempt) for job in hostages.jobs]
    seconds = max(claims) - hostages.lost_at
    return replace(counts, hostages=len(claims), takeover_seconds=round(seconds, 1))


def _faults(told: Told, found: Found | None) -> Iterator[str]:
    """What is wrong with a job and with what its client was told, one sentence each."""
    prompt, asked = told.asked.prompt, told.asked
    yield from (f"{prompt}: {defect}" for defect in told.defects)
    if found is None or not found.job.status.is_final:
        return
    if found.published != found.text:
        yield f"{prompt}: the stream says {found.published!r}, the record {found.text!r}"
    if not _is_right(found, asked):
        yield f"{prompt}: {found.job.status} with {found.text!r}"
    if found.job.usage and found.job.usage.completion_tokens != _tokens(found, asked):
        yield f"{prompt}: {found.job.usage} for {found.text!r}"
    if found.ends != [found.job.status] and len(found.ends) < 2:
        yield f"{prompt}: {found.job.status}, and its stream ends with {found.ends}"
    if told.ends not in ([], [found.job.status]):
        yield f"{prompt}: {found.job.status}, and its client was told {told.ends}"
    if told.ends and told.text != found.text and _hears_text(told):
        yield f"{prompt}: the client has {told.text!r} of {found.text!r}"


def _is_right(found: Found, asked: Asked) -> bool:
    """All of the text where the job succeeded, else a beginning of it, whoever said it."""
    said, expected = voiceless(found.text), voiceless(asked.text)
    return said == expected if found.job.status is Status.SUCCEEDED else expected.startswith(said)


def _tokens(found: Found, asked: Asked) -> int:
    return asked.tokens if found.job.status is Status.SUCCEEDED else found.text.count(" ")


def _hears_text(told: Told) -> bool:
    """A /generate that fails is told the reason and no text; a text stream may fail before its first piece."""
    return told.ends == ["succeeded"] or told.asked.way not in (Way.GENERATE, Way.TEXT_STREAM)
