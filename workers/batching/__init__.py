"""Continuous batching: sequences, the scheduler and the loop that runs them.

Import rules of this package: from `workers.engines` it imports `base` and `runner`; from `app.jobs` only plain
dataclasses (`job`, `events`, `sampling`); and `app.errors` and `app.config.settings`. It uses no Redis, Celery, Flask
or tensors.
"""
