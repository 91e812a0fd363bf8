"""One blueprint per resource; `BLUEPRINTS` is all of them."""

from collections.abc import Sequence

from app.openapi import Blueprint
from app.routes import docs, embeddings, generate, health, job_events, jobs, models

BLUEPRINTS: Sequence[Blueprint] = (
    generate.blueprint,
    embeddings.blueprint,
    jobs.blueprint,
    job_events.blueprint,
    models.blueprint,
    health.blueprint,
    docs.blueprint,
)
