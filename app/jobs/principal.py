"""Who a job is for: the API key that may see it, and the tenant whose share it takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from app.jobs.job import ANONYMOUS, Priority

MAX_LABEL = 64  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who sends a request, as its jobs and batches keep it.

    Args:
        owner: one API key; only it sees its jobs, files and batches.
        tenant: the group of the key, else the key itself. Shares of the service and shared prefixes are a tenant's.
        key_name: of the API key, for people.
        weight: the tenant's share, relative to the weights of others.
        label: what the request names for reports of usage.
        max_priority: the first class that the key may ask for.
        models: which models and adapters it may ask for, by name; none: all.
        max_tokens: the most that it may let a job generate; None: no limit.
    """

    owner: str
    tenant: str
    key_name: str = ""
    weight: float = 1.0
    label: str = ""
    max_priority: Priority = Priority.HIGH
    models: tuple[str, ...] = ()
    max_tokens: int | None = None

    def with_label(self, text: str | None) -> Self:
        """Return this principal with a label; one that it has stays. Only a printable beginning of the text counts."""
        label = "".join(character for character in (text or "")[:MAX_LABEL] if character.isprintable()).strip()
        return self if self.label or not label else replace(self, label=label)

    def to_fields(self) -> dict[str, str]:
        """Return its fields for a record in Redis."""
        return {
            "owner": self.owner,
            "tenant": self.tenant,
            "key_name": self.key_name,
            "weight": repr(self.weight),
            "label": self.label,
            "max_priority": self.max_priority.value,
            **({"models": json.dumps(self.models)} if self.models else {}),
            **({} if self.max_tokens is None else {"max_tokens": str(self.max_tokens)}),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Self:
        """Return the principal of a record; one written by an earlier release has only an owner."""
        return cls(
            owner=fields["owner"],
            tenant=fields.get("tenant", fields["owner"]),
            key_name=fields.get("key_name", ""),
            weight=float(fields.get("weight", 1.0)),
            label=fields.get("label", ""),
            max_priority=Priority(fields.get("max_priority", Priority.HIGH)),
            models=tuple(json.loads(fields.get("models", "[]"))),
            max_tokens=int(fields["max_tokens"]) if "max_tokens" in fields else None,
        )


ANONYMOUS_PRINCIPAL = Principal(owner=ANONYMOUS, tenant=ANONYMOUS)
"""The principal of every request where no API keys are configured."""
