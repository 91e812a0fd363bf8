"""The frame of a client's program: it plays the scenes one after the other, and prints each outcome as a line of JSON.

A program is started as `python program.py SERVICE`, with a `Service` as JSON, in the client's own environment. That
environment has neither the product nor pytest; this module needs nothing but the standard library.
"""

import inspect
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from service import Service

SERVICE = Service(**json.loads(sys.argv[1]))
BASE_URL = f"{SERVICE.url}/v1"
EMBEDDING_BASE_URL = f"{SERVICE.embedding_url}/v1"
KEY = "any"  # most clients start with a key only; the service under test has none configured

_LONGEST_MESSAGE = 600

Scene = Callable[[], None]
_scenes: dict[str, Scene] = {}
_not_offered: dict[str, str] = {}


def scene(function: Scene) -> Scene:
    """Register a function as a scene: it passes when it returns, and fails when it raises."""
    _scenes[function.__name__] = function
    return function


def not_offered(name: str, reason: str) -> None:
    """State that the client has nothing for a scene that all clients are asked for."""
    _not_offered[name] = reason


def play() -> None:
    """Play every scene. Prints a line for each: its name, its outcome (passed, failed, not offered), and the reason."""
    for name, reason in _not_offered.items():
        _print(name, "not offered", reason)
    for name, function in _scenes.items():
        try:
            function()
        except Exception as error:
            traceback.print_exc()
            _print(name, "failed", _described(error, function))
        else:
            _print(name, "passed", "")


def _print(name: str, outcome: str, reason: str) -> None:
    print(json.dumps({"scene": name, "outcome": outcome, "reason": reason}), flush=True)


def _described(error: Exception, function: Scene) -> str:
    """Return one line: the program's own line that failed, and the error."""
    program = inspect.getfile(function)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == program]
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{Path(program).parent.name}: `{lines[-1] if lines else '?'}` {message}"[:_LONGEST_MESSAGE]
