"""The page at `/` in Chromium, over the real service with SmolLM2. Pictures go into `LLM_API_SCREENSHOTS`, if set."""

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from app.access.api_key import ApiKey, Scope
from app.access.key_store import KeyStore
from app.jobs.job import JobRequest, Kind, Priority
from app.jobs.principal import Principal
from app.jobs.redis_client import connect
from app.jobs.store import JobStore
from app.jobs.worker_registry import WorkerState, announce, read_workers, retire
from tests.app.api.webhooks.receiver import SECRET
from tests.browser import DESKTOP, PHONE, Visit, barriers, running_browser, visiting
from tests.stack import SMOLLM2, Stack, running_stack
from tests.valkey import running_valkey
from tests.waiting import scaled, until

KEY, ADMIN_KEY = "the-pages-own-key", "the-key-of-an-admin"
STORY = "Tell a long story about a dog and a cat who travel around the world."
ANSWERS = "#messages article.assistant"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("page")
    more = {
        "server": {"processes": 1},
        "auth": {"api_keys": [KEY], "admin_keys": [ADMIN_KEY]},
        "jobs": {"max_queued": 5000},
        "webhooks": {"secret": SECRET, "allow_private": True},
    }
    config = SMOLLM2 | {"worker": {"slots": 2}} | more
    with running_valkey(folder / "valkey") as valkey, running_stack(folder, valkey.url, config) as stack:
        yield stack


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=scaled(10) * 1000)
    with running_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, service: Stack) -> Iterator[Visit]:
    with visiting(browser, service.url, key=KEY) as visit:
        yield visit
        assert visit.refusals == []


@pytest.fixture
def api(service: Stack) -> Iterator[httpx.Client]:
    with service.client(headers=service.headers) as client:
        yield client


def say(page: Page, text: str, **parameters: object) -> Locator:
    """Send a message under these parameters, and return the article of its answer."""
    fill(page, **parameters)
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")
    return page.locator(ANSWERS).last


def fill(page: Page, **parameters: object) -> None:
    for name, value in parameters.items():
        page.locator(f"#parameters [name={name}]").fill(str(value))


def wait_for_state(answer: Locator, state: str) -> None:
    expect(answer).to_have_attribute("data-state", state, timeout=scaled(40) * 1000)


def wait_for_text(answer: Locator, characters: int = 20) -> str:
    until(lambda: len(answer.locator(".text").inner_text()) > characters, 20, "text of the answer")
    return answer.locator(".text").inner_text()


def job_of(api: httpx.Client, answer: Locator) -> dict[str, Any]:
    job: dict[str, Any] = api.get(f"/jobs/{answer.get_attribute('data-job')}").json()
    return job


def answer_kept(visit: Visit) -> dict[str, Any]:
    answer: dict[str, Any] = visit.stored("chat")[-1]["answer"]
    return answer


def kept_text(visit: Visit) -> str:
    text: str = answer_kept(visit)["text"]
    return text


def test_a_chat_streams_and_shows_its_figures(visit: Visit, api: httpx.Client) -> None:
    answer = say(visit.open(), STORY, max_tokens=60, temperature=0)
    wait_for_state(answer, "writing")
    wait_for_text(answer)
    assert answer.get_attribute("data-state") == "writing", "text is seen before the end"
    wait_for_state(answer, "ended")
    job = job_of(api, answer)
    assert kept_text(visit) == job["output"]["text"]
    figures = answer.locator(".figures").inner_text()
    assert "60 tokens" in figures and f"{job['metrics']['tokens_per_second']:.1f} tokens/s" in figures
    assert "first token after" in figures and "prompt tokens cached" in figures


def test_a_conversation_goes_on_and_is_regenerated(visit: Visit, api: httpx.Client) -> None:
    page = visit.open()
    first = say(page, "My name is Ann.", max_tokens=8, temperature=0, system="You are brief.")
    wait_for_state(first, "ended")
    second = say(page, "What is my name?")
    wait_for_state(second, "ended")
    sent = visit.stored("chat")[-1]["answer"]["request"]["body"]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    page.get_by_role("button", name="Regenerate").last.click()
    wait_for_state(page.locator(ANSWERS).last, "ended")
    assert page.locator(ANSWERS).count() == 2


def test_an_edit_keeps_what_follows_until_it_is_sent(visit: Visit) -> None:
    page = visit.open()
    for text in ("My name is Ann.", "What is my name?"):
        wait_for_state(say(page, text, max_tokens=4, temperature=0), "ended")
    draft, messages = page.get_by_label("Your message"), page.locator("#messages > article")
    draft.fill("half a thought")
    page.get_by_role("button", name="Edit").first.click()
    expect(draft).to_have_value("My name is Ann.")
    expect(draft).to_be_focused()
    assert messages.count() == 4 and page.locator("#messages > [inert]").count() == 4
    assert barriers(page) == []
    page.keyboard.press("Escape")
    expect(draft).to_have_value("half a thought")
    edits = page.get_by_role("button", name="Edit")
    expect(edits.first).to_be_focused()
    assert page.locator("#messages > [inert]").count() == 0 and len(visit.stored("chat")) == 4
    edits.last.click()
    page.get_by_role("button", name="Cancel").click()
    expect(edits.last).to_be_focused()
    edits.last.click()
    assert page.locator("#messages > [inert]").count() == 2
    answer = say(page, "Who am I?")
    wait_for_state(answer, "ended")
    sent = answer_kept(visit)["request"]["body"]["messages"]
    assert [message["content"] for message in sent if message["role"] == "user"] == ["My name is Ann.", "Who am I?"]
    assert messages.count() == 4 and page.get_by_role("button", name="Cancel").count() == 0


def test_an_answer_that_was_cut_off_is_continued(visit: Visit, api: httpx.Client) -> None:
    page = visit.open()
    first = say(page, STORY, max_tokens=12, temperature=0)
    wait_for_state(first, "ended")
    expect(first.locator(".figures")).to_contain_text("ended at its limit of tokens")
    before = kept_text(visit)
    fill(page, max_tokens=6)
    page.get_by_role("button", name="Continue").click()
    answer = page.locator(ANSWERS)
    wait_for_state(answer, "ended")
    assert answer.count() == 1
    job = job_of(api, answer)
    assert (kept_text(visit), job["usage"]["completion_tokens"]) == (before + job["output"]["text"], 6)
    assert job["output"]["text"] and not job["output"]["text"].startswith(before)
    expect(answer.locator(".figures")).to_contain_text("18 tokens")


def test_a_chat_is_written_to_the_end_of_the_context(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#parameters [name=max_tokens]")).to_have_attribute("placeholder", "what fits")
    expect(page.locator("#parameters [name=temperature]")).to_have_attribute("placeholder", "0.8")
    answer = say(page, "word " * 440, temperature=100)  # noise has no end
    wait_for_state(answer, "ended")
    expect(answer.locator(".figures")).to_contain_text("the context of the model is full")
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)


def test_an_empty_chat_offers_a_beginning_and_the_field_has_the_focus(visit: Visit) -> None:
    page = visit.open("queue")
    page.get_by_role("link", name="Completion").click()
    expect(page.get_by_label("Prompt, which")).to_be_focused()
    page.get_by_role("link", name="Chat").click()
    draft = page.get_by_label("Your message")
    expect(draft).to_be_focused()
    page.get_by_role("button", name="Name three colors.").click()
    expect(draft).to_be_focused()
    expect(draft).to_have_value("Name three colors.")


def test_stop_ends_the_job_and_keeps_its_text(visit: Visit, api: httpx.Client) -> None:
    page = visit.open()
    answer = say(page, STORY, max_tokens=400, temperature=0)
    wait_for_text(answer)
    page.get_by_role("button", name="Stop").click()
    wait_for_state(answer, "ended")
    expect(answer.locator(".figures")).to_contain_text("stopped")
    assert job_of(api, answer)["status"] == "canceled"
    assert answer.locator(".text").inner_text() and answer.locator(".error").is_hidden()


def test_stop_shows_at_once_that_it_stops(visit: Visit, service: Stack) -> None:
    page = visit.open()
    answer = say(page, STORY, max_tokens=400, temperature=0)
    wait_for_text(answer)
    service.processes["worker"].send_signal(signal.SIGSTOP)
    try:
        page.get_by_role("button", name="Stop").click()
        stopping = page.get_by_role("button", name="Stopping")
        expect(stopping).to_be_disabled()
        expect(answer).to_have_attribute("data-state", "writing")
    finally:
        service.processes["worker"].send_signal(signal.SIGCONT)
    wait_for_state(answer, "ended")
    expect(stopping).to_be_hidden()


def test_an_answer_is_stopped_before_its_job_is_known(visit: Visit, api: httpx.Client) -> None:
    page = visit.open()

    def hold(route: Route) -> None:
        page.get_by_role("button", name="Stop").dispatch_event("click")
        route.continue_()

    page.route("**/agenerate", hold)
    answer = say(page, STORY, max_tokens=400, temperature=0)
    wait_for_state(answer, "ended")
    assert job_of(api, answer)["status"] == "canceled"


def test_a_stream_goes_on_where_it_was_after_a_reload(visit: Visit, api: httpx.Client) -> None:
    answer = say(visit.open(), STORY, max_tokens=120, temperature=0)
    wait_for_text(answer, 60)
    last_event_ids: list[str] = []
    visit.page.on(
        "request", lambda request: last_event_ids.extend(filter(None, [request.headers.get("last-event-id")]))
    )
    visit.page.reload()
    assert wait_for_text(answer, 60)
    wait_for_state(answer, "ended")
    assert kept_text(visit) == job_of(api, answer)["output"]["text"]
    assert len(last_event_ids) == 1, "it did not begin again"


def test_a_stream_goes_on_when_its_worker_is_killed(visit: Visit, api: httpx.Client, service: Stack) -> None:
    answer = say(visit.open(), STORY, max_tokens=120, temperature=0)
    wait_for_text(answer, 60)
    worker = service.processes.pop("worker")
    worker.kill()
    worker.wait()
    figures = answer.locator(".figures")
    try:
        expect(figures).to_have_text(re.compile("^waiting for the worker"), timeout=scaled(12) * 1000)
    finally:
        service.start_worker()
    wait_for_state(answer, "ended")
    job = job_of(api, answer)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert kept_text(visit) == job["output"]["text"]
    expect(figures).to_contain_text("continued by another worker")


def test_an_error_is_shown_with_its_cure(visit: Visit) -> None:
    page = visit.open()
    answer = say(page, "word " * 600)
    wait_for_state(answer, "ended")
    expect(answer.locator(".error")).to_contain_text("context")
    fill(page, schema="{no json")
    page.get_by_role("button", name="Regenerate").click()
    assert "It must be a JSON Schema" in page.evaluate("document.querySelector('[name=schema]').validationMessage")
    page.get_by_role("button", name="New conversation").click()
    fill(page, schema="")
    page.route("**/agenerate", lambda route: route.abort())
    refused = say(page, "Hello")
    wait_for_state(refused, "ended")
    expect(refused.locator(".error")).to_contain_text("Check that it runs (make run)")
    visit.refusals.clear()  # of the request that did not get through


def test_output_follows_a_schema_and_shows_probabilities(visit: Visit) -> None:
    page = visit.open()
    page.locator("[name=logprobs]").check()
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    answer = say(page, "Where is the Eiffel Tower?", temperature=0, schema=json.dumps(schema))
    wait_for_state(answer, "ended")
    assert json.loads(answer.locator(".text").inner_text())["city"] in ("Paris", "Rome")
    tokens = answer.locator(".token")
    assert tokens.count() > 3 and "%" in (tokens.nth(1).get_attribute("title") or "")
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()


def test_calls_of_tools_are_shown_and_their_results_are_sent(visit: Visit) -> None:
    page = visit.open()
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    page.locator("[name=tool_choice]").select_option("required")
    question = "What is the weather in Paris?"
    answer = say(page, question, max_tokens=100, temperature=0, tools=json.dumps([tool]))
    wait_for_state(answer, "ended")
    expect(answer.locator(".call")).to_contain_text("weather")
    assert json.loads(answer.locator(".call pre").inner_text()) == {"city": "Paris"}
    visit.page.reload()
    page.locator("[name=tool_choice]").select_option("")
    page.get_by_label("Result of weather").fill("sunny")
    page.get_by_role("button", name="Send the results").click()
    wait_for_state(page.locator(ANSWERS).last, "ended")
    sent = visit.stored("chat")[-1]["answer"]["request"]["body"]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]


def test_the_key_is_asked_for_and_kept_in_the_tab(browser: Browser, service: Stack) -> None:
    with visiting(browser, service.url) as visit:
        page = visit.open()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This server needs an API key: paste it here. Its operator makes one with")
        page.get_by_role("button", name="Close").click()
        expect(page.get_by_role("alert")).to_contain_text("This server needs an API key: paste it under API key.")
        page.get_by_role("button", name="API key").click()
        page.get_by_label("Key", exact=True).fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("This is not a key of this server, or it has expired or was revoked")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("SmolLM2")
        assert dialog.is_hidden() and page.evaluate("localStorage.length") == 0
        assert visit.refusals


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Stack]:
    """A service that has no API key yet."""
    config = SMOLLM2 | {"worker": {"slots": 2}, "server": {"processes": 1}}
    with running_valkey(tmp_path / "valkey") as valkey, running_stack(tmp_path, valkey.url, config) as stack:
        yield stack


def make_key(service: Stack, name: str, *scopes: Scope) -> str:
    with contextlib.closing(connect(service.redis_url)) as redis:
        _, secret = KeyStore(redis).create(ApiKey(id="", name=name, digest="", scopes=frozenset(scopes)))
    return secret


def use_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_an_answer_goes_on_when_a_key_becomes_necessary(browser: Browser, open_service: Stack) -> None:
    with visiting(browser, open_service.url) as visit:
        page = visit.open()
        answer = say(page, STORY, max_tokens=300, temperature=0)
        wait_for_text(answer, 60)
        own = make_key(open_service, "anna", Scope.INFERENCE, Scope.JOBS)
        lacking = make_key(open_service, "files", Scope.BATCHES)
        admin = make_key(open_service, "operator", Scope.ADMIN, Scope.INFERENCE, Scope.JOBS)
        job = answer.get_attribute("data-job")
        with open_service.client(headers={"Authorization": f"Bearer {admin}"}) as api:
            until(lambda: httpx.get(f"{open_service.url}/jobs").status_code == 401, 5, "the need of a key")
            page.reload()
            expect(page.get_by_role("dialog")).to_contain_text("This server needs an API key: paste it here.")
            wait_for_state(answer, "locked")
            assert answer.locator(".error").is_hidden()
            use_key(page, lacking)
            expect(page.get_by_role("dialog")).to_contain_text("an API key with the scope jobs")
            wait_for_state(answer, "locked")
            use_key(page, own)
            expect(answer.locator(".error")).to_have_text(re.compile("made without a key. A key with the scope admin"))
            wait_for_state(answer, "locked")
            assert barriers(page) == []
            page.get_by_role("button", name="API key").click()
            use_key(page, admin)
            wait_for_state(answer, "ended")
            whole = api.get(f"/jobs/{job}").json()
        assert (whole["status"], whole["attempt"]) == ("succeeded", 1)
        assert kept_text(visit) == whole["output"]["text"]
        assert answer.locator(".error").is_hidden() and visit.refusals


CARETS_ARE_IN = r"""async (text) => {
  const { AnswerView } = await import("./web/answer_view.js");
  const { newAnswer } = await import("./web/answer.js");
  const view = new AnswerView("Answer");
  const show = (text) => view.show({ ...newAnswer({ path: "agenerate", body: {} }), text, state: "writing" });
  document.body.append(view.element);
  show("earlier\n\n");
  show(`earlier\n\n${text}`);
  const hasCaret = (one) => getComputedStyle(one, "::after").content !== "none";
  const shown = [...view.element.querySelectorAll("*")].filter(hasCaret);
  view.element.remove();
  return shown.map((one) => `${one.localName}: ${one.textContent}`);
}"""
CARETS = {
    "a *b*": "p: a b",
    "# T": "p: T",
    "- a\n- b": "li: b",
    "- a\n  - b": "li: b",
    "> q": "p: q",
    "```\nx = 1": "code: x = 1",
}


def test_the_caret_stands_behind_the_last_character(visit: Visit) -> None:
    page = visit.open()
    assert {text: page.evaluate(CARETS_ARE_IN, text) for text in CARETS} == {text: [at] for text, at in CARETS.items()}


def test_a_completion_continues_its_prompt(visit: Visit, api: httpx.Client) -> None:
    page = visit.open("completion")
    fill(page, max_tokens=8, temperature=0)
    page.get_by_label("Prompt, which").fill("The capital of France is")
    page.get_by_role("button", name="Complete").click()
    answer = page.locator("#completed article")
    wait_for_state(answer, "ended")
    first = answer.locator(".text").inner_text()
    assert "Paris" in first
    page.get_by_role("button", name="Continue").click()
    expect(answer.locator(".text")).not_to_have_text(first)
    wait_for_state(answer, "ended")
    assert job_of(api, answer)["usage"]["completion_tokens"] == 8
    assert page.get_by_label("Prompt, which").input_value() == f"The capital of France is{first}"


MARKDOWN = {
    "**a** *b* `c` 2 * 3 * 4": "<p><strong>a</strong> <em>b</em> <code>c</code> 2 * 3 * 4</p>",
    "# T\n\n- a\n- b\n  - c\n\ntext": (
        '<p class="heading level-1">T</p><ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><p>text</p>'
    ),
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "> q\n> r": "<blockquote><p>q\nr</p></blockquote>",
    "```py\n<b>\n\nx = 1": '<pre tabindex="0" aria-label="Code: py"><code>&lt;b&gt;\n\nx = 1</code></pre>',
    "<img src=x onerror=alert(1)>": "<p>&lt;img src=x onerror=alert(1)&gt;</p>",
    "[a](javascript:alert(1))": "<p>[a](javascript:alert(1))</p>",
    '[a](https://e.org/"onclick=x)': (
        '<p><a href="https://e.org/&quot;onclick=x" rel="noopener noreferrer" target="_blank">a</a></p>'
    ),
}
SHOW = """async (text) => {
  const { MarkdownText } = await import("./web/markdown.js");
  const whole = document.createElement("div"), grown = document.createElement("div");
  const view = new MarkdownText(grown);
  for (let end = 1; end <= text.length; end++) view.show(text.slice(0, end));
  new MarkdownText(whole).show(text);
  return [whole.innerHTML, grown.innerHTML];
}"""


def test_markdown_is_shown_and_markup_stays_text(visit: Visit) -> None:
    page = visit.open()
    shown = {text: page.evaluate(SHOW, text) for text in MARKDOWN}
    assert shown == {text: [html, html] for text, html in MARKDOWN.items()}, "at once, and letter by letter"


def test_a_job_is_watched_and_canceled_in_the_queue(visit: Visit, api: httpx.Client) -> None:
    page = visit.open("queue")
    job = api.post("/agenerate", json={"prompt": STORY, "params": {"max_tokens": 400, "ignore_eos": True}}).json()["id"]
    row = page.locator(f"#running-jobs tr[data-key='{job}']")
    expect(row).to_be_visible()
    until(lambda: int(row.locator("td").nth(4).inner_text()) > 5, 20, "tokens of the job")
    page.get_by_role("button", name=f"Open job {job[:8]}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(STORY)
    expect(dialog).to_contain_text(re.compile(r"Tokens so far: \d+, "))
    page.goto(f"{visit.url}/#usage")
    expect(dialog).to_be_hidden()
    page.go_back()
    page.get_by_role("button", name=f"Cancel job {job[:8]}").click()
    expect(row).to_have_count(0)
    assert api.get(f"/jobs/{job}", params={"wait": 5}).json()["status"] == "canceled"
    ended = page.locator(f"#ended-jobs tr[data-key='{job}']")
    expect(ended).to_contain_text("canceled")
    expect(ended).to_contain_text(re.compile(r"\d+ s ago"))
    ended.get_by_role("button", name=f"Open job {job[:8]}").click()
    expect(dialog).to_contain_text(STORY)


def test_the_last_ended_jobs_of_ones_own_are_listed(visit: Visit, api: httpx.Client, service: Stack) -> None:
    body = {"prompt": "Hello", "params": {"max_tokens": 2, "ignore_eos": True}}
    jobs = [api.post("/generate", json=body).headers["Location"].split("/")[-1] for _ in range(12)]
    waiting = api.post("/agenerate", json={"prompt": STORY, "not_before": "+3600"}).json()["id"]
    with service.client(headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as admin:
        another = admin.post("/generate", json=body).headers["Location"].split("/")[-1]
    page = visit.open("queue")
    rows = page.locator("#ended-jobs tr")
    expect(rows).to_have_count(10)
    listed = [row.get_attribute("data-key") for row in rows.all()]
    assert listed == jobs[:1:-1] and not {waiting, another} & {*listed}
    expect(rows.first).to_contain_text("succeeded")
    assert rows.first.locator("td").nth(2).inner_text() == "2"
    api.post(f"/jobs/{waiting}/cancel")


def test_the_priority_of_a_waiting_job_is_changed_with_the_keyboard(visit: Visit, api: httpx.Client) -> None:
    job = api.post("/agenerate", json={"prompt": STORY, "not_before": "+3600"}).json()["id"]
    page = visit.open("queue")
    page.locator("#open-job [name=job]").fill(job)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(STORY)
    priority, report = dialog.get_by_label("Priority"), dialog.get_by_role("status")
    expect(priority).to_have_value("normal")
    priority.focus()
    for key in ("h", "Tab", "Enter"):
        page.keyboard.press(key)
    expect(report).to_have_text("The priority is high now.")
    expect(dialog.locator("dl")).to_contain_text("high")
    assert api.get(f"/jobs/{job}").json()["priority"] == "high"
    assert barriers(page) == []
    api.post(f"/jobs/{job}/cancel")
    priority.select_option("low")
    dialog.get_by_role("button", name="Change the priority").click()
    expect(report).to_contain_text("the job is canceled; only a job that is queued")
    expect(priority).to_be_hidden()
    visit.refusals.clear()  # of the change that came too late


def test_a_job_shows_what_has_become_of_its_webhook(visit: Visit, api: httpx.Client) -> None:
    body = {"prompt": STORY, "not_before": "+3600", "webhook": {"url": "http://127.0.0.1:1/hook"}}
    job = api.post("/agenerate", json=body).json()["id"]
    page = visit.open("queue")
    page.locator("#open-job [name=job]").fill(job)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("dl")).to_contain_text("http://127.0.0.1:1/hook: at the end of the job")
    api.post(f"/jobs/{job}/cancel")
    until(lambda: api.get(f"/jobs/{job}").json()["webhook"]["tries"], what="the first try")
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Open", exact=True).click()
    expect(dialog.locator("dl")).to_contain_text(re.compile(r"1/hook: waiting, \d (try|tries): .+; the next at"))


@contextlib.contextmanager
def crowd(service: Stack, model: str, count: int) -> Iterator[None]:
    """Let so many jobs of another owner wait, at low priority."""
    with contextlib.closing(connect(service.redis_url)) as client:
        store = JobStore(client, model=model, ttl_seconds=60, max_queued=count)
        low = JobRequest(kind=Kind.GENERATE, prompt="x", priority=Priority.LOW)
        another = Principal(owner="another", tenant="another")
        jobs = [store.admit(low, another).id for _ in range(count)]
        try:
            yield
        finally:
            for job in jobs:
                store.cancel(job)


def test_2000_waiting_jobs_are_shown_within_a_second(visit: Visit, api: httpx.Client, service: Stack) -> None:
    body = {"prompt": STORY, "params": {"max_tokens": 400, "ignore_eos": True}}
    jobs = [api.post("/agenerate", json=body).json()["id"] for _ in range(2)]
    with crowd(service, api.get("/v1/models").json()["data"][0]["id"], 2000):
        page = visit.open("queue")
        expect(page.locator("#queue-counts")).to_contain_text("2000 waiting; the first 100 are shown")
        jobs.append(api.post("/agenerate", json=body).json()["id"])
        row = page.locator(f"#waiting-jobs tr[data-key='{jobs[2]}']")
        until(row.count, 1.0, "the row of a new job")
        assert row.locator("td").first.inner_text() == "1", "the others are low"
        page.locator("#queue-owner").select_option("own")
        assert page.locator("#waiting-jobs tr").count() == 1
        for job in reversed(jobs):
            api.post(f"/jobs/{job}/cancel")
    expect(page.locator("#queue-counts")).to_contain_text("0 waiting")


def test_a_batch_goes_from_its_upload_to_its_results(visit: Visit) -> None:
    page = visit.open("queue")
    body = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body} for number in range(3)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    upload = page.get_by_label("A file of requests (JSONL)")
    upload.set_input_files({"name": "requests.jsonl", "mimeType": "application/jsonl", "buffer": b"no json"})
    page.get_by_role("button", name="Run this batch").click()
    expect(page.locator("#batch-error")).to_contain_text("Each line is an object with custom_id")
    upload.set_input_files({"name": "requests.jsonl", "mimeType": "application/jsonl", "buffer": text})
    page.get_by_role("button", name="Run this batch").click()
    card = page.locator("#batches li").first
    expect(card).to_contain_text("completed · 3 of 3 lines", timeout=scaled(20) * 1000)
    batch = card.get_attribute("data-key") or ""
    expect(card.locator("h4")).to_have_text(f"requests.jsonl · {batch[:14]}…")
    expect(card.locator("h4")).to_have_attribute("title", batch)
    with page.expect_download() as download:
        card.get_by_role("button", name="Results").click()
    results = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert sorted(result["custom_id"] for result in results) == ["0", "1", "2"]
    assert "Paris" in results[0]["response"]["body"]["choices"][0]["text"]


def test_workers_show_their_state_and_bars(visit: Visit) -> None:
    page = visit.open("workers")
    card = page.locator("#worker-cards li")
    expect(card).to_contain_text("ready")
    expect(card).to_contain_text("of 2 slots")
    expect(card).to_contain_text("· cpu")
    expect(page.locator("#model-list")).to_contain_text("SmolLM2")


def test_usage_is_a_chart_and_sums_that_agree_with_the_ledger(visit: Visit, api: httpx.Client) -> None:
    api.post("/generate", json={"prompt": "Hello", "params": {"max_tokens": 2}})
    total = api.get("/usage").json()["total"]
    page = visit.open("usage")
    tokens = total["prompt_tokens"] + total["completion_tokens"]
    expect(page.locator("#usage-caption")).to_contain_text(f"{tokens:,} tokens from")
    expect(page.locator("#usage-chart rect")).to_have_count(1)
    assert page.locator("#usage-rows tr").first.locator("td").first.inner_text() == f"{total['requests']:,}"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert Path(download.value.path()).read_text().startswith("day,key")


def test_an_admin_makes_uses_and_revokes_a_key(browser: Browser, service: Stack, visit: Visit) -> None:
    expect(visit.open().get_by_role("link", name="Keys")).to_have_count(0)
    with visiting(browser, service.url, key=ADMIN_KEY) as admin:
        page = admin.open()
        page.get_by_role("link", name="Keys").click()
        page.get_by_label("Name", exact=True).fill("ann-laptop")
        page.get_by_label("Requests a minute").fill("60")
        page.get_by_role("button", name="Make the key").click()
        secret = page.locator("#new-secret code").inner_text()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == secret
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.get_by_role("button", name="Copied").click()
        expect(page.get_by_role("button", name="Selected: copy it with the keyboard")).to_be_visible()
        assert page.evaluate("getSelection().toString()") == secret
        row = page.locator("#key-rows tr", has_text="ann-laptop")
        expect(row).to_contain_text("requests per minute 60")
        with httpx.Client(headers={"Authorization": f"Bearer {secret}"}) as ann:
            assert ann.get(f"{service.url}/v1/models").status_code == 200
            page.get_by_label("Name", exact=True).fill("ann-laptop")
            page.get_by_role("button", name="Make the key").click()
            expect(page.locator("#new-key-error")).to_be_visible()
            admin.refusals.clear()
            page.on("dialog", lambda dialog: dialog.accept())
            page.get_by_role("button", name="Revoke ann-laptop").click()
            expect(row).to_have_count(0)
            until(lambda: ann.get(f"{service.url}/v1/models").status_code == 401, 5, "the end of the key")
        admin.open("chat")
        assert page.locator("#new-secret").inner_text() == ""


def test_the_keys_are_hidden_from_a_key_that_may_not_see_them(visit: Visit) -> None:
    page = visit.open("keys")
    expect(page.get_by_role("alert")).to_contain_text("has no scope 'admin'")
    expect(page.get_by_role("button", name="Make the key")).to_be_hidden()
    visit.refusals.clear()


def prepare_chat(page: Page) -> None:
    answer = say(page, "Write a list of three cities.", max_tokens=40, temperature=0)
    wait_for_state(answer, "ended")


VIEWS: dict[str, Callable[[Page], None]] = {
    "chat": prepare_chat,
    "completion": lambda page: None,
    "queue": lambda page: expect(page.locator("#queue-counts")).to_contain_text("waiting"),
    "keys": lambda page: expect(page.locator("#key-rows tr").first).to_be_visible(),
    "usage": lambda page: expect(page.locator("#usage-caption")).to_contain_text("tokens"),
    "workers": lambda page: expect(page.locator("#worker-cards li")).to_contain_text("ready"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_barriers_and_fits_a_phone(browser: Browser, service: Stack, view: str) -> None:
    folder = os.environ.get("LLM_API_SCREENSHOTS")
    with visiting(browser, service.url, key=ADMIN_KEY if view == "keys" else KEY) as visit:
        page = visit.open(view)
        VIEWS[view](page)
        for scheme, size in (("light", DESKTOP), ("dark", PHONE)):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size(size)  # type: ignore[arg-type]
            if folder:
                page.screenshot(path=Path(folder) / f"{view}-{scheme}-{size['width']}.png", full_page=True)
            for part in ("html", "nav"):
                fits = page.locator(part).evaluate("part => part.scrollWidth <= part.clientWidth")
                assert fits, f"nothing of {part} stands out sideways"
            assert barriers(page) == []


def test_the_theme_is_chosen_and_kept(visit: Visit) -> None:
    page = visit.open()
    for theme in ("light", "dark", ""):
        page.get_by_role("button", name="Theme").click()
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == theme


def test_a_worker_that_has_failed_is_shown_with_its_reason(visit: Visit, service: Stack) -> None:
    redis = connect(service.redis_url)
    (worker,) = read_workers(redis)
    failed = replace(worker, id="box-7-aaaaaaaa", state=WorkerState.FAILED, detail="there is no such file")
    announce(redis, failed)
    try:
        card = visit.open("workers").locator("#worker-cards li").filter(has_text=failed.id)
        expect(card.locator(".state")).to_have_text("failed: there is no such file")
    finally:
        retire(redis, failed.id)


def test_what_the_message_of_an_error_says_is_not_said_again(visit: Visit) -> None:
    lines = visit.open().evaluate(
        """async () => {
          const { APIError } = await import("./web/api.js");
          return new APIError(422, "", "a: Too long.", { a: ["Too long."], b: ["Wrong."] }).lines;
        }"""
    )
    assert lines == ["a: Too long.", "b: Wrong."]
