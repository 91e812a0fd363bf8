"""A hook of MkDocs: adds what is made when the site is built.

The lists of `http-reference.md` come from the application's own OpenAPI document, so that they are never stale.
`CONTRIBUTING.md` and `CHANGELOG.md` are files of the repository's root, where people look for them; links lead there on
disk. Decisions are listed from their folder.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.http_reference import http_reference, openapi_document

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
DECISIONS_INDEX, REFERENCE = "decisions/index.md", "http-reference.md"
ROOT_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision in the navigation (called by MkDocs)."""
    _section_of(DECISIONS_INDEX, config.nav or []).extend(f"decisions/{note.name}" for note in DECISIONS)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root (called by MkDocs)."""
    for name in ROOT_PAGES:
        content = (ROOT / name).read_text().replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")
        files.append(File.generated(config, name.lower(), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the lists to their pages, and have links lead to the pages of the site (called by MkDocs)."""
    if page.file.src_uri == DECISIONS_INDEX:
        return markdown + "\n" + "\n".join(f"- [{_title(note)}]({note.name})" for note in DECISIONS) + "\n"
    if page.file.src_uri == REFERENCE:
        return markdown + "\n" + http_reference(openapi_document())
    for name in ROOT_PAGES:
        markdown = markdown.replace(f"](../{name}", f"]({name.lower()}")
    return markdown


def _title(note: Path) -> str:
    return note.read_text().splitlines()[0].removeprefix("# ")


def _section_of(page: str, entries: list[Any]) -> list[Any]:
    """The list of the navigation that holds `page`; an empty one where there is none."""
    if page in entries:
        return entries
    sections = [below for entry in entries if isinstance(entry, dict) for below in entry.values()]
    return next(filter(None, (_section_of(page, below) for below in sections if isinstance(below, list))), [])
