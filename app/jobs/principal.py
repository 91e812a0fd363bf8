"""Who a job is for: the API key that may see it, and the tenant whose share it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from app.jobs.job import ANONYMOUS, Priority


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
    """

    owner: str
    tenant: str
    key_name: str = ""
    weight: float = 1.0
    label: str = ""
    max_priority: Priority = Priority.HIGH

    def to_fields(self) -> dict[str, str]:
        """Return its fields for a record in Redis."""
        return {
            "owner": self.owner,
            "tenant": self.tenant,
            "key_name": self.key_name,
            "weight": repr(self.weight),
            "label": self.label,
            "max_priority": self.max_priority.value,
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
        )


ANONYMOUS_PRINCIPAL = Principal(owner=ANONYMOUS, tenant=ANONYMOUS)
"""The principal of every request where no API keys are configured."""
