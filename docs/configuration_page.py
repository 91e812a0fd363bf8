"""Writes the table of keys in docs/configuration.md: `make reference`. A test fails while the page is stale."""

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("configuration.md")
MARK = "<!-- written by `make reference`: do not edit below this line -->\n"


def page() -> str:
    """The page as it should be: what is written by hand, and the table that the configuration's schema prints."""
    command = [sys.executable, "-m", "app.config.reference"]
    table = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=True).stdout  # noqa: S603
    written_by_hand = PAGE.read_text().partition(MARK)[0]
    return f"{written_by_hand}{MARK}\n{table.strip()}\n"


if __name__ == "__main__":
    PAGE.write_text(page())
