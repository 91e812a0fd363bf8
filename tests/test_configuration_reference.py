"""The configuration reference lists every key as it is declared."""

import subprocess
import sys

from app.config.schema import known_keys, schema_of, section
from app.config.settings import Config
from docs.configuration_reference import page, reference


def test_every_key_has_a_row_with_its_variable_type_default_and_meaning() -> None:
    keys = [key for key, field in known_keys(schema_of(Config)()).items() if section(field) is None]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in reference().splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{key}`" for key in keys]
    assert all(len(row) == 5 and all(row) for row in rows)


def test_a_row_is_what_the_key_declares() -> None:
    lines = reference().splitlines()
    row = (
        "| `server.port` | `LLM_API_SERVER__PORT` | a whole number from 1 to 65535 | `8000` "
        "| The port to listen on; `LLM_API_PORT` sets it too. |"
    )
    assert row in lines
    assert any(line.startswith("| `worker.slots` |") and "| `auto` |" in line for line in lines)
    assert any(line.startswith("| `redis_url` |") and "| `null` |" in line for line in lines)
    assert any(line.startswith("| `worker.speculation` |") and "| `true` |" in line for line in lines)


def test_the_module_prints_the_page() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "docs.configuration_reference"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        encoding="utf-8",
    )
    assert printed.stdout == page()
