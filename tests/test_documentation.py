"""The documentation links to and names files that exist, and its generated pages are not stale."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.http_reference import http_reference, openapi_document
from tests.documentation import PAGES, ROOT

SOURCES = [path for folder in ("app", "workers", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
TIMELESS = [path for path in PAGES if path.parent.name != "decisions" and path.name != "CHANGELOG.md"]
NAMED_FILE = re.compile(r"`((?:app|workers|tests|docs)/[\w./-]*[\w/])`")
NAMED_NOTE = re.compile(r"docs/decisions/\d{4}(?:-[\w-]+\.md)?")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    targets = [page.parent / target for target in LINK.findall(page.read_text())]
    assert [str(target) for target in targets if not target.exists()] == []


@pytest.mark.parametrize("page", TIMELESS, ids=name_of)
def test_a_page_names_files_that_exist(page: Path) -> None:
    named = set(NAMED_FILE.findall(page.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_page_about_security_names_tests_that_exist() -> None:
    rows = [
        line for line in (ROOT / "docs/security.md").read_text().splitlines() if line.startswith("|") and ".py" in line
    ]
    named = [NAMED_TEST.findall(row) for row in rows]
    assert len(rows) > 50 and all(named)
    assert [name for tests in named for name in tests if not is_test(*name)] == []


def is_test(file: str, function: str) -> bool:
    path = ROOT / "tests" / file
    return path.exists() and re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE) is not None


def test_the_decisions_that_the_source_names_exist() -> None:
    named = {note for source in SOURCES for note in NAMED_NOTE.findall(source.read_text())}
    assert named != set()
    assert [
        note for note in sorted(named) if not list(ROOT.glob(note if note.endswith(".md") else f"{note}-*.md"))
    ] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_page_of_the_configuration_is_what_make_reference_writes() -> None:
    command = [sys.executable, "-m", "docs.configuration_reference"]
    printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert (ROOT / "docs/configuration.md").read_text() == printed, "run `make reference`"


def test_the_http_reference_has_every_operation_and_every_object() -> None:
    document = openapi_document()
    page = http_reference(document)
    operations = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    assert [it for it in operations if it[0] != "PARAMETERS" and f"### {it[0]} {it[1]} " not in page] == []
    assert [name for name in document["components"]["schemas"] if f"### {name} " not in page] == []
