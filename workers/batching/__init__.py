"""Continuous batching: sequences, the scheduler and the loop that runs them.

Law of this room: it knows `workers.engines.base` and `runner`, and of `app.jobs` only plain dataclasses (`job`,
`events`, `sampling`); nothing of Redis, Celery or Flask, and no tensors.
"""
