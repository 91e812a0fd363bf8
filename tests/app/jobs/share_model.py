"""The promises about fair shares as a model in plain Python, for the model of a job's life."""

from collections.abc import Mapping

from app.jobs.job import Usage

PROMPT_TOKENS = 1  # estimated for the prompts of the test
UNKNOWN_LENGTH = 100
NEWEST_SHARE = 0.1


class Shares:
    """Counters of tenants with weights. A tenant with waiting jobs has a seat: the class of the first of them."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.counters = dict.fromkeys(weights, 0.0)
        self.seats: dict[str, int] = {}
        self._starts = {0: 0.0, 1: 0.0, 2: 0.0}
        self._weights = weights
        self._lengths: dict[str, float] = {}

    def first(self) -> str | None:
        return min(self.seats, key=lambda tenant: (self.seats[tenant], self.counters[tenant], tenant), default=None)

    def seat(self, tenant: str, step: int | None) -> None:
        """Note the class of the tenant's first waiting job, None without one."""
        if step is None:
            self.seats.pop(tenant, None)
            return
        if self.seats.get(tenant) != step:
            self.counters[tenant] = max(self.counters[tenant], self._starts[step])
        self.seats[tenant] = step

    def cost(self, usage: Usage) -> float:
        return usage.prompt_tokens - usage.cached_tokens + 2.0 * usage.completion_tokens

    def charge(self, tenant: str, step: int, published: int, charged: float) -> float:
        """Charge the estimate of a job instead of what was charged before. Returns the estimate."""
        length = max(self._lengths.get(tenant, UNKNOWN_LENGTH), published)
        estimate = PROMPT_TOKENS + 2.0 * length
        self._starts[step] = max(self._starts[step], self.counters[tenant])
        self.counters[tenant] += (estimate - charged) / self._weights[tenant]
        return estimate

    def settle(self, tenant: str, usage: Usage, charged: float, *, by_worker: bool = False) -> None:
        """Replace what was charged for a job by what it took. by_worker: its worker ended it."""
        length, took = usage.completion_tokens, self.cost(usage)
        if by_worker and length:
            mean = self._lengths.get(tenant, length)
            self._lengths[tenant] = mean + NEWEST_SHARE * (length - mean)
        if took != charged:
            self.counters[tenant] = max(0.0, self.counters[tenant] + (took - charged) / self._weights[tenant])
