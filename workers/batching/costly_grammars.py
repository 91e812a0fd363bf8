"""A bound on the time that a tenant's grammars and schemas may cost: those that turn out too costly are counted.

Finding out takes up to a second of a CPU each, in which all others wait longer. After a few of them the tenant's
grammars are rejected without a trial for a while, except those that were served before.
"""

import json
import threading
import time
from collections import OrderedDict

from app.errors import GrammarTooCostly
from app.jobs.job import JobRequest
from app.jobs.sampling import CONSTRAINTS

MAX_COSTLY = 2  # of a tenant, before the next ones are rejected at once
FORGET_SECONDS = 20.0  # one of them is forgotten in this time
_REMEMBERED = 1024  # grammars that were served


class CostlyGrammars:
    """Any thread may use it."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, float]] = {}  # of a tenant: how many, and when that was
        self._served: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, tenant: str, error: Exception) -> None:
        """Count a failure of a tenant's request, if it is one that took long to find."""
        if isinstance(error, GrammarTooCostly):
            with self._lock:
                self._counts[tenant] = (self._count(tenant) + 1, time.monotonic())

    def note_served(self, request: JobRequest) -> None:
        """Remember the grammar of a request that could be compiled."""
        if (grammar := _grammar_of(request)) is not None:
            with self._lock:
                self._served[grammar] = None
                self._served.move_to_end(grammar)
                if len(self._served) > _REMEMBERED:
                    self._served.popitem(last=False)

    def check(self, tenant: str, request: JobRequest) -> None:
        """Raises GrammarTooCostly: the tenant has sent too many, and this one has not been served before."""
        grammar = _grammar_of(request)
        with self._lock:
            count = self._count(tenant)
            if grammar is None or grammar in self._served or count <= MAX_COSTLY - 1:
                return
        seconds = max(1, round((count - (MAX_COSTLY - 1)) * FORGET_SECONDS))
        reason = f"grammars of this key took too long; new ones are read again in {seconds} s: make them simpler"
        fields = [f"params.{name}" for name in CONSTRAINTS if request.params.get(name) is not None]
        raise GrammarTooCostly(f"no new grammar is compiled now: {reason}", errors={name: [reason] for name in fields})

    def _count(self, tenant: str) -> float:
        count, counted_at = self._counts.get(tenant, (0.0, 0.0))
        left = count - (time.monotonic() - counted_at) / FORGET_SECONDS
        if left <= 0:
            self._counts.pop(tenant, None)
        return max(0.0, left)


def _grammar_of(request: JobRequest) -> int | None:
    """Return a number for what constrains the output of a request; None: nothing does."""
    given = {name: request.params[name] for name in CONSTRAINTS if request.params.get(name) is not None}
    return hash(json.dumps(given)) if given else None
