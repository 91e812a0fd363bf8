"""The pages of the documentation, and the commands that they show."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def curls() -> list[str]:
    """Return the curl commands of all code blocks, each once, without comments and line continuations."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    found = re.findall(r"^curl(?:'[^']*'|[^'\n])*", text, flags=re.MULTILINE)
    commands = (" ".join(shlex.split(command, comments=True, posix=False)) for command in found)
    return list(dict.fromkeys(commands))


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, on all pages."""
    text = "\n".join(page.read_text() for page in PAGES)
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
