"""A hook of MkDocs: adds the pages that are made when the site is built.

`http-reference.md` comes from the application's own OpenAPI document, so that it is never stale. `contributing.md` and
`changelog.md` are files of the repository's root, where people look for them. Decisions are listed from their folder.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.http_reference import http_reference, openapi_document

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
DECISIONS_INDEX = "decisions/index.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision in the navigation (called by MkDocs)."""
    _section_of(DECISIONS_INDEX, config.nav or []).extend(f"decisions/{note.name}" for note in DECISIONS)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages (called by MkDocs)."""
    pages = {"http-reference.md": http_reference(openapi_document())}
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        pages[name.lower()] = text.replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """List every decision on their first page (called by MkDocs)."""
    if page.file.src_uri != DECISIONS_INDEX:
        return markdown
    return markdown + "\n" + "\n".join(f"- [{_title(note)}]({note.name})" for note in DECISIONS) + "\n"


def _title(note: Path) -> str:
    return note.read_text().splitlines()[0].removeprefix("# ")


def _section_of(page: str, entries: list[Any]) -> list[Any]:
    """The list of the navigation that holds `page`; an empty one where there is none."""
    if page in entries:
        return entries
    sections = [below for entry in entries if isinstance(entry, dict) for below in entry.values()]
    return next(filter(None, (_section_of(page, below) for below in sections if isinstance(below, list))), [])
