"""Celery's side of a job: the task carries the job id and returns nothing; the job record holds the rest."""

from celery import Celery

from app.jobs.order import TASK_NAME
from workers.worker import Worker


def register_tasks(celery: Celery, worker: Worker) -> None:
    @celery.task(name=TASK_NAME, ignore_result=True)
    def run_job(job_id: str) -> None:
        worker.run(job_id)
