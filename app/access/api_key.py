"""What an API key is: whose it is, what it opens, and up to which limits. It does not contain the secret."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from app.jobs.job import ANONYMOUS, Priority

OWNER_DIGITS = 24  # hex digits of a digest: 96 bits, beyond collision


class Scope(StrEnum):
    """What a key may do. A route declares the scope that it needs; `ADMIN` opens every route."""

    INFERENCE = "inference"  # generate, chat, embed, tokenize
    JOBS = "jobs"  # list, read, follow, cancel and delete jobs
    BATCHES = "batches"  # files and batches
    ADMIN = "admin"  # manage keys, see what belongs to other keys


DEFAULT_SCOPES = frozenset(Scope) - {Scope.ADMIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a key may use. None: no limit of its own. Days and months are those of UTC.

    concurrent_jobs: jobs that have not ended. waiting_jobs: those of them that wait. max_tokens: that one job
    generates. The others count tokens of prompts and completions together. `lua/limits.lua` reads them.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_jobs: int | None = None
    waiting_jobs: int | None = None
    max_tokens: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key. Times are Unix seconds.

    Args:
        id: `key-` and 24 hex digits. It is also the owner of everything that is made with this key, and stays the same
            when the secret is replaced.
        group: keys of one group share one turn and one prefix cache; "": the key stands for itself.
        models: the models and adapters that it may ask for, by name; none: all.
        weight: its share, compared with those of other keys.
        digest: SHA-256 of the secret, in hex.
        is_configured: it stands in the configuration, not in Redis.
    """

    id: str
    name: str
    digest: str
    group: str = ""
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    models: tuple[str, ...] = ()
    weight: float = 1.0
    max_priority: Priority = Priority.HIGH
    limits: Limits = field(default_factory=Limits)
    created_at: float | None = None
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
    is_configured: bool = False

    @property
    def tenant(self) -> str:
        """Whom the key belongs to when slots are shared: its group, or the key itself."""
        return self.group or self.id

    def allows(self, scope: Scope | None) -> bool:
        """Return whether the key opens a route that needs this scope; None: any key does."""
        return scope is None or scope in self.scopes or Scope.ADMIN in self.scopes


OWNER = re.compile(rf"{ANONYMOUS}|key-[0-9a-f]{{{OWNER_DIGITS}}}")
"""Owners of jobs, files and batches: ids of keys, and the one of requests without any. No name looks like one."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
"""Names of keys and of groups, which stand in command lines and in URLs."""


def fault_of_name(name: str) -> str | None:
    """Return what is wrong with the name of a key or of a group; None: nothing."""
    if not NAME.fullmatch(name):
        return "Must be 1 to 64 letters, digits and . _ @ + -, and begin with a letter or digit."
    return f"Must not look like an id of a key; {name!r} does." if OWNER.fullmatch(name) else None


def owner_of(digest: str) -> str:
    """Return the id of the key whose first secret has this digest."""
    return f"key-{digest[:OWNER_DIGITS]}"
