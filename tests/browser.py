"""Chromium for tests of the page. Each visit fails at an error in its console and at a request to another host."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.waiting import scaled

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 760}
DESKTOP = {"width": 1200, "height": 800}
_REFUSED = "Failed to load resource"  # what Chromium writes for each status of 400 and more


def chromium() -> str:
    """Return the path of Chromium. Without it the test is skipped, and fails in CI."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        assert not os.environ.get("CI"), "CI needs Chromium, which .ci/run installs"
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return path


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        # no sandbox: there is none in a container, and the pages are our own
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """A tab of its own: storage, cookies and all. refusals: how many answers of 400 and more the test expects."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, view: str = "") -> Page:
        self.page.goto(f"{self.url}/{view and '#'}{view}")
        return self.page

    def stored(self, name: str) -> Any:
        return self.page.evaluate(f"JSON.parse(sessionStorage.getItem('llm-api.{name}'))")


@contextlib.contextmanager
def visiting(browser: Browser, url: str, *, key: str | None = None, **options: Any) -> Iterator[Visit]:
    """Open a tab on the service at `url`.

    Args:
        key: The API key that this tab has already.
        options: Of the context: `viewport`, `color_scheme`.
    """
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    context.set_default_timeout(scaled(20) * 1000)
    if key is not None:
        context.add_init_script(f"sessionStorage.setItem('llm-api.key', '{key}')")
    visit = Visit(context.new_page(), url)
    _listen(visit)
    yield visit
    context.close()
    assert visit.complaints == []
    assert [request for request in visit.requests if not request.startswith(f"{url}/")] == []


def _listen(visit: Visit) -> None:
    def hear(message: Any) -> None:
        kind = visit.refusals if message.text.startswith(_REFUSED) else visit.complaints
        if message.type in ("error", "warning"):
            kind.append(message.text)

    visit.page.on("console", hear)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("request", lambda request: visit.requests.append(request.url))


def barriers(page: Page) -> list[str]:
    """Return what axe finds that is serious or critical for people who do not see the page, or use no mouse."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']} ({violation['impact']}): {[node['target'] for node in violation['nodes']]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
