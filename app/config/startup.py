"""How a program ends that cannot start: one line with the reason, and exit status 78, because a restart cannot fix it.

Docker knows no exit status that forbids a restart. A program that it restarts for ever waits before it ends
(`LLM_API_EXIT_DELAY`, in seconds; docker-compose.yaml sets it), so that its container is tried again once in that time.
"""

import os
import sys
import time
from collections.abc import Mapping

from app.config.environment import EXIT_DELAY
from app.errors import StartupError


def give_up(error: StartupError, program: str = "", environ: Mapping[str, str] = os.environ) -> int:
    """Write the reason of `error` to stderr, wait `LLM_API_EXIT_DELAY` seconds, and return the exit status.

    Args:
        program: stands before the reason where programs share a terminal.
    """
    sys.stderr.write(f"{program}: {error.detail}\n" if program else f"{error.detail}\n")
    sys.stderr.flush()
    delay_seconds = environ.get(EXIT_DELAY, "")
    if delay_seconds.isdecimal():
        time.sleep(int(delay_seconds))
    return os.EX_CONFIG
