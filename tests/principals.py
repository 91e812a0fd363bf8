"""Principals of tests: API keys without a group."""

from app.jobs.principal import Principal


def key_named(owner: str) -> Principal:
    return Principal(owner=owner, tenant=owner)


ME = key_named("me")
