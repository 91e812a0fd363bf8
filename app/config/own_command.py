"""How this program is typed here: messages that tell a person to run a command name it so that their shell finds it."""

import shutil
import sys
from pathlib import Path

_PROGRAM = "llm-api"


def own_command(words: str) -> str:
    """Return the command line of `llm-api WORDS`: by its path where the shell would not find it by its name."""
    if shutil.which(_PROGRAM):
        return f"{_PROGRAM} {words}"
    script = Path(sys.executable).with_name(_PROGRAM)
    if script.exists():
        return f"{_from_here(script)} {words}"
    return f"{_from_here(Path(sys.executable))} -m app.cli {words}"


def _from_here(path: Path) -> Path:
    """Return the path from the working folder, where it is in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
