"""Finds out whether a grammar can be compiled: in a child process, which may hang, fill its memory or crash.

llguidance makes regular expressions of some keywords of JSON Schema and intersects them. Its limits do not bound that:
a schema of 100 characters with four `multipleOf` compiles for hours. A thread cannot be ended; a process can.
"""

import threading
from functools import lru_cache

from workers.engines.shared import grammar_trial
from workers.engines.shared.child_process import ChildFailed, ChildLimit, ChildProcesses

MAX_PROCESSES = 2  # a tenant has at most three jobs in preparation, and the cores are for decoding
_PROGRAM = "workers.engines.shared.grammar_trial"
_REMEMBERED = 256  # grammars
_RISKY = ('"pattern"', '"patternProperties"', '"multipleOf"', '"format"')


class GrammarSandbox:
    """Any thread may use it."""

    def __init__(self) -> None:
        self._children: ChildProcesses | None = None
        self._lock = threading.Lock()
        self.compiles = lru_cache(maxsize=_REMEMBERED)(self._compiles)
        """Can this process compile a grammar within the limits? Takes as long as compiling it, the first time."""

    def compiles_schema(self, schema: str, grammar: str) -> bool:
        """The same of a grammar made of a JSON Schema; without a risky keyword it is not tried."""
        return not any(keyword in schema for keyword in _RISKY) or self.compiles(grammar)

    def _compiles(self, grammar: str) -> bool:
        try:
            self._processes.call({"grammar": grammar})
        except ChildLimit:
            return False
        except ChildFailed:  # it fails here, too, and is reported
            return True
        return True

    @property
    def _processes(self) -> ChildProcesses:
        """Started with the first grammar that is tried: that takes 0.2 s."""
        with self._lock:
            if self._children is None:
                self._children = ChildProcesses(_PROGRAM, grammar_trial.LIMITS, {}, most=MAX_PROCESSES)
            return self._children
