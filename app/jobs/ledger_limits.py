"""How much of the ledger is kept, as the scripts that end jobs need it."""

from dataclasses import dataclass
from typing import Self

from app.config.ledger import AuditConfig, UsageConfig
from app.config.settings import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLimits:
    """usage_days: beside the current one. audit_entries: 0: no entry is added."""

    usage_days: int = UsageConfig().keep_days
    audit_entries: int = AuditConfig().keep

    @classmethod
    def of(cls, config: Config) -> Self:
        return cls(usage_days=config.usage.keep_days, audit_entries=config.audit.keep)

    def kept(self, ttl_seconds: int) -> str:
        """Return the argument `kept` of `lua/end_job.lua`.

        ttl_seconds: how long jobs without a time to live of their own are kept.
        """
        return f"{ttl_seconds} {self.usage_days} {self.audit_entries}"
