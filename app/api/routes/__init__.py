"""One blueprint per resource; `BLUEPRINTS` is all of them. How to add a route: CONTRIBUTING.md."""

from collections.abc import Sequence

from app.api.openapi import Blueprint
from app.api.routes import (
    admin_keys,
    docs,
    embeddings,
    generate,
    health,
    job_events,
    jobs,
    metrics,
    models,
    openai_adapters,
    openai_batches,
    openai_completions,
    openai_files,
    openai_responses,
    tokenize,
    usage,
)

BLUEPRINTS: Sequence[Blueprint] = (
    generate.blueprint,
    embeddings.blueprint,
    jobs.blueprint,
    job_events.blueprint,
    models.blueprint,
    openai_completions.chat_blueprint,
    openai_completions.completions_blueprint,
    openai_completions.embeddings_blueprint,
    openai_responses.blueprint,
    openai_files.blueprint,
    openai_batches.blueprint,
    openai_adapters.blueprint,
    tokenize.blueprint,
    usage.blueprint,
    health.blueprint,
    metrics.blueprint,
    admin_keys.blueprint,
    docs.blueprint,
)
