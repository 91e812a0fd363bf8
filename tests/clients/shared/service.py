"""What a program knows of the service that it runs against. The runner and the programs read it: no other import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """Where the running service answers, and what it serves.

    `embedding_model` is served at `embedding_url`, which may be another service; it also answers to the name
    `text-embedding-3-small`.
    """

    url: str
    model: str
    context_tokens: int
    embedding_url: str
    embedding_model: str
    embedding_dimensions: int
