"""What the jobs of a model that have ended add up to, since Redis began to count.

`lua/totals.lua` counts each job once, in the step that ends it: a killed process loses no job and counts none twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.jobs import keys
from app.jobs.redis_client import RedisClient

# upper bounds in seconds, as vLLM has them
FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
REQUEST_BOUNDS = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50),
    *(60, 120, 240, 480, 960, 1920, 7680),
)
INFINITY = "+Inf"


@dataclass(frozen=True, slots=True)
class Distribution:
    """buckets: (upper bound, how many values are not above it), the last is `+Inf`. total: the sum, in seconds."""

    buckets: Sequence[tuple[str, int]]
    total: float


class Totals:
    """The counts of one model.

    | name | labels |
    |---|---|
    | `jobs` | status, finish reason (`-`: none), kind, priority |
    | `errors` | code |
    | `attempts`, `cached_responses` | |
    | `prompt_tokens`, `cached_tokens`, `generation_tokens` | source |

    The distributions are `first_token_seconds`, `token_seconds`, `queue_seconds` and `request_seconds`.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name: int(value) for name, value in fields.items()}

    def counts(self, name: str) -> list[tuple[list[str], int]]:
        """Return the values of the labels and the count, of each combination that has occurred."""
        split = [(field.split(" "), value) for field, value in sorted(self._fields.items())]
        return [(labels, value) for (first, *labels), value in split if first == name]

    def count(self, name: str) -> int:
        """Return the sum over all labels."""
        return sum(value for _, value in self.counts(name))

    def distribution(self, name: str, bounds: Sequence[float]) -> Distribution:
        buckets, below = [], 0
        for bound in (*(f"{bound:g}" for bound in bounds), INFINITY):
            below += self._fields.get(f"{name} {bound}", 0)
            buckets.append((bound, below))
        return Distribution(buckets, self._fields.get(f"{name} sum", 0) / 1e6)


def read_totals(client: RedisClient, model: str) -> Totals:
    return Totals(client.hgetall(keys.totals(model)))
