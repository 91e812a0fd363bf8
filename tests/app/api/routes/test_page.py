import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api.routes.page import WEB

SERVED = sorted(path.name for path in WEB.iterdir() if path.suffix in (".js", ".css", ".svg"))
MAKES_MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc"
)


def get(client: FlaskClient, path: str, **options: Any) -> TestResponse:
    """Return the response, its file read and closed."""
    with client.get(path, **options) as response:
        response.get_data()
        return response


def references(html: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"#]+)"', html)


def test_the_page_is_at_the_root_and_needs_no_key(locked_app: Flask) -> None:
    client = locked_app.test_client()
    response = get(client, "/")
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert {get(client, f"/web/{name}").status_code for name in SERVED} == {200}


def test_the_policy_lets_the_page_use_its_own_files_and_nothing_else(client: FlaskClient) -> None:
    directives = dict(
        part.strip().split(" ", 1) for part in get(client, "/").headers["Content-Security-Policy"].split(";")
    )
    assert directives["default-src"] == "'none'" and directives["frame-ancestors"] == "'none'"
    assert {directives[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert directives["require-trusted-types-for"] == "'script'"


def test_the_page_has_no_inline_script_or_style(client: FlaskClient) -> None:
    html = get(client, "/").text
    assert re.findall(r"<script[^>]*>[^<]", html) == [] and "<style" not in html
    assert re.findall(r'\s(?:on\w+|style)="', html) == []


def test_paths_of_the_page_are_relative_for_a_proxy_that_serves_it_under_a_path_of_its_own(client: FlaskClient) -> None:
    found = references(get(client, "/").text)
    assert len(found) > 4
    for path in found:
        assert not path.startswith(("/", "http"))
        assert get(client, f"/{path}").status_code == 200
    for path in WEB.glob("*.js"):
        assert not re.search(r"""["'`]/(?:jobs|v1|web|live|docs)""", path.read_text()), path.name


@pytest.mark.parametrize("name", [name for name in SERVED if name.endswith(".js")])
def test_no_script_makes_markup_of_a_text_or_names_another_host(name: str) -> None:
    text = (WEB / name).read_text()
    assert not MAKES_MARKUP.search(text)
    assert not re.search(r"https?://\w", text.replace("http://www.w3.org/2000/svg", ""))


@pytest.mark.parametrize("name", [name for name in SERVED if name.endswith(".js")])
def test_a_module_imports_modules_that_exist(name: str) -> None:
    imported = re.findall(r'from "\./([\w.]+)"', (WEB / name).read_text())
    assert set(imported) <= set(SERVED)


def test_files_have_their_types_and_are_asked_for_each_time(client: FlaskClient) -> None:
    response = get(client, "/web/main.js")
    assert response.headers["Content-Type"].startswith("text/javascript")
    assert response.headers["Cache-Control"] == "no-cache"
    again = get(client, "/web/main.js", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "name", ["index.html", "__init__.py", "..%2fapi%2fapplication.py", "nothing.js", "../config.yaml"]
)
def test_no_other_file_is_served(client: FlaskClient, name: str) -> None:
    assert get(client, f"/web/{name}").status_code == 404


def test_every_file_of_the_page_is_served() -> None:
    assert {path.name for path in Path(WEB).iterdir()} == {*SERVED, "index.html"}
