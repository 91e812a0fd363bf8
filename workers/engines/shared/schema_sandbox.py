"""Compiles a JSON schema's grammar in a child process first, which may hang, fill its memory or crash.

llguidance makes regular expressions of some keywords and intersects them. Its limits do not bound that: a schema of
100 characters with four `multipleOf` compiles for hours. A thread cannot be ended; a process can.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
from functools import lru_cache

CPU_SECONDS = 1.0  # of compiling; a schema of 900 properties, each with a format, takes 0.3 s
MEMORY_BYTES = 512 * 1024 * 1024
WAIT_SECONDS = 15  # the limit of CPU time ends it long before, unless the machine is overloaded
MAX_PROCESSES = 2  # at once: an owner has at most three jobs in preparation, and the cores are for decoding
NICENESS = 10
_RISKY = ('"pattern"', '"patternProperties"', '"multipleOf"', '"format"')
_processes = threading.BoundedSemaphore(MAX_PROCESSES)


def compiles_safely(schema: str, grammar: str) -> bool:
    """Can this process compile it? Takes 0.1 s the first time for a schema with a risky keyword, else nothing."""
    return not any(keyword in schema for keyword in _RISKY) or compiles_in_time(grammar)


@lru_cache(maxsize=256)
def compiles_in_time(grammar: str) -> bool:
    """Can any process compile it? Takes 0.1 s the first time."""
    command = [sys.executable, "-P", __file__]
    with _processes:
        try:
            completed = subprocess.run(command, input=grammar.encode(), capture_output=True, timeout=WAIT_SECONDS)  # noqa: S603
        except subprocess.TimeoutExpired:  # the process has been ended
            return False
    return completed.returncode == 0


def _compile_within_limits() -> None:
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from llguidance import LLMatcher, LLTokenizer

    grammar, tokenizer = sys.stdin.read(), LLTokenizer("byte")
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
    LLMatcher(tokenizer, grammar, log_level=0)  # the parent compiles it again, and reports an error


if __name__ == "__main__":
    _compile_within_limits()
