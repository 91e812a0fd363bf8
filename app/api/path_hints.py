"""What to call instead of a path that does not exist: most often the base URL of a client lacks /v1 or has it twice."""

from collections.abc import Iterator

from flask import Request
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect

from app.config.nearest_name import nearest_name

OPENAI_BASE = "/v1"
_MAX_PARTS = 8  # of a path; the longest one here has five
_PAGES = ("/docs/", "/static/", "/web/")


def similar_path(path: str, routes: Map) -> str | None:
    """Return the path of this API that a path contains, or that it nearly is."""
    known = next((candidate for candidate in _candidates(path) if _exists(candidate, routes)), None)
    fixed = [rule.rule for rule in routes.iter_rules() if not rule.arguments]
    return known or nearest_name(path, fixed)


def missing_path(request: Request, similar: str | None) -> str:
    """Return the sentence for a path that does not exist."""
    base = f"{request.host_url.rstrip('/')}{OPENAI_BASE}"
    if request.path.rstrip("/") == OPENAI_BASE:
        return f"{base} is the base URL of OpenAI's API: paths such as {OPENAI_BASE}/chat/completions follow it"
    if similar is None:
        return "there is no such path; /docs lists the paths"
    cure = f"; the base URL for OpenAI's clients is {base}" if similar.startswith(f"{OPENAI_BASE}/") else ""
    return f"there is no such path: use {similar}{cure}"


def _candidates(path: str) -> Iterator[str]:
    parts = [part for part in path.split("/") if part]
    if len(parts) <= _MAX_PARTS:
        for start in range(len(parts)):
            rest = "/" + "/".join(parts[start:])
            yield from (OPENAI_BASE + rest, rest)


def _exists(path: str, routes: Map) -> bool:
    try:
        routes.bind("").match(path)
    except (NotFound, RequestRedirect):
        return False
    except MethodNotAllowed:
        return not path.startswith(_PAGES)
    return not path.startswith(_PAGES)
