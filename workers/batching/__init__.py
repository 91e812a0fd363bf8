"""Continuous batching: sequences, the scheduler and the loop that runs them.

Law of this room: it knows `workers.engines.base` and `app.errors`, `app.jobs.job` and `app.jobs.sampling`; nothing
of Redis, Celery or Flask, and no tensors.
"""
