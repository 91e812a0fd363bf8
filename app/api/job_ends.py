"""What the end of a job means to a client that waits for it."""

from app.errors import EngineFailed, JobCanceled, JobExpired, LLMAPIError, error_from_code
from app.jobs.job import JobError, Status


def raise_unless_succeeded(status: Status, job_error: JobError | None, index: int = 0) -> None:
    """Raise the error that a job ended with, if any. index: of the job among those of its request."""
    error = error_of(status, job_error)
    if error is not None:
        error.job_index = index
        raise error


def error_of(status: Status, job_error: JobError | None) -> LLMAPIError | None:
    """Return what the end of a job means to a client that waits for it; None for success."""
    if status is Status.SUCCEEDED:
        return None
    if job_error is not None:
        return error_from_code(job_error.code, job_error.message, job_error.errors)
    if status is Status.CANCELED:
        return JobCanceled("the job was canceled before its end")
    if status is Status.EXPIRED:
        return JobExpired("the job waited too long for its turn; try again, or ask for a higher priority")
    return EngineFailed("the job failed, and its worker gave no reason")
