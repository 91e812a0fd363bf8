"""The commands that use a service, typed against a real one that has an API key and writes "tick " for each token.

`llm-api api` and `llm-api worker` start it.
"""

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app.cli.answer import Answer
from app.cli.job_events import JobEvent
from app.config.own_command import own_command
from tests.app.api.webhooks.receiver import SECRET
from tests.app.cli.command_line import REPOSITORY, typed
from tests.stack import Stack, engine_config, free_port
from tests.valkey import running_valkey
from tests.waiting import scaled, until

KEY = "hunter2"
Typed = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("service")
    config = engine_config("slow:Slow", model_params={"step_seconds": 0.02}, auth={"api_keys": [KEY]})
    config["webhooks"] = {"secret": SECRET, "allow_private": True}
    config["server"] = {"processes": 1, "threads": 32}
    with running_valkey(folder / "valkey") as valkey:
        stack = Stack(folder, valkey.url, config)
        try:
            stack.start("worker", "app.cli", "worker")
            stack.start("api", "app.cli", "api")
            stack.wait_alive()
            with stack.client(headers={"Authorization": f"Bearer {KEY}"}) as http:
                until(lambda: http.get("/readyz").status_code == 200, what="the service is ready")
            yield stack
        finally:
            stack.stop()


@pytest.fixture
def environ(service: Stack) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_API_")}
    return kept | {"LLM_API_URL": service.url, "LLM_API_KEY": KEY}


@pytest.fixture
def llm_api(environ: dict[str, str]) -> Typed:
    """Types a command line of a user of the service."""

    def command(*words: str, stdin: str | None = None) -> Result:
        return typed(*words, environ=environ, stdin=stdin)

    return command


def parsed(ran: Result) -> Any:
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def job_of(llm_api: Typed, *words: str) -> dict[str, Any]:
    job: dict[str, Any] = parsed(llm_api("generate", "hello", "--json", *words))
    return job


def submitted(service: Stack, **body: Any) -> str:
    """Make a job that runs for long, and return its id."""
    with service.client(headers={"Authorization": f"Bearer {KEY}"}) as http:
        body = {"prompt": "x", "params": {"max_tokens": 5000}} | body
        return str(http.post("/agenerate", json=body).json()["id"])


# --- generate, models -------------------------------------------------------------------------------------------------


def test_generate_prints_the_text_with_a_line_end_and_says_on_stderr_that_a_limit_has_ended_it(llm_api: Typed) -> None:
    ran = llm_api("generate", "Once upon a time", "--max-tokens", "3")
    assert (ran.exit_code, ran.stdout) == (0, "tick tick tick \n")
    assert ran.stderr == "[ended at the limit of 3 tokens; --max-tokens N for more]\n"
    assert llm_api("generate", "x").stderr == "[ended at the limit of 20 tokens; --max-tokens N for more]\n"


def test_generate_reads_a_prompt_from_a_pipe_and_prints_the_job_as_json(llm_api: Typed) -> None:
    job = parsed(llm_api("generate", "-", "--json", "--max-tokens", "2", "--priority", "high", stdin="a prompt\n"))
    assert (job["status"], job["output"]["text"], job["priority"]) == ("succeeded", "tick tick ", "high")


def test_a_parameter_that_the_service_does_not_know_is_one_line_with_its_advice(llm_api: Typed) -> None:
    ran = llm_api("generate", "hello", "--param", "temperatur=1")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1 and "temperature" in ran.stderr


def test_models_lists_what_is_served(llm_api: Typed) -> None:
    ran = llm_api("models")
    assert ran.stdout.splitlines()[1].split()[:4] == ["slow", "ready", "100000", "tests.engines.slow:Slow"]
    assert parsed(llm_api("models", "--json"))["data"][0]["id"] == "slow"


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_over_several_pages(llm_api: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [job_of(llm_api, "--max-tokens", "1")["id"] for _ in range(3)]
    monkeypatch.setattr("app.cli.job_ids._PAGE", 2)
    assert [job["id"] for job in parsed(llm_api("jobs", "list", "--limit", "3", "--json"))] == made[::-1]
    for words, job_id in (([], made[-1][:8]), (["--full"], made[-1])):
        lines = llm_api("jobs", "list", "--limit", "1", "--status", "succeeded", *words).stdout.splitlines()
        assert lines[0].split()[:4] == ["ID", "STATUS", "PRIORITY", "CREATED"]
        assert [line.split()[:3] for line in lines[1:]] == [[job_id, "succeeded", "normal"]]


def test_the_first_digits_of_an_id_are_enough(service: Stack, llm_api: Typed) -> None:
    job_id = submitted(service, not_before="+3600")
    short = job_id[:8].upper()
    assert llm_api("jobs", "priority", short, "low").stdout == f"{job_id} low\n"
    assert llm_api("jobs", "cancel", short, job_id[:20]).stdout == f"{job_id} canceled\n" * 2
    assert f"id         {job_id}\n" in llm_api("jobs", "show", short).stdout
    assert llm_api("jobs", "follow", short).stderr == "Error: the job is canceled\n"
    again = parsed(llm_api("jobs", "retry", short, "--json"))[0]
    llm_api("jobs", "cancel", again["id"])


@pytest.mark.parametrize("given", ["1234567", "the job", "12345678-x"])
def test_what_is_no_beginning_of_an_id_is_refused_with_where_to_find_one(llm_api: Typed, given: str) -> None:
    ran = llm_api("jobs", "show", given)
    assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
    assert (
        f"{given!r} is no id of a job, nor the first 8 digits of one; {own_command('jobs list')} shows them"
        in ran.stderr
    )


def test_a_job_is_shown_with_its_text_and_followed_again_from_its_beginning(llm_api: Typed) -> None:
    job = job_of(llm_api, "--max-tokens", "2")
    shown = llm_api("jobs", "show", job["id"]).stdout
    assert "status       succeeded\n" in shown and shown.endswith("\n\ntick tick \n")
    assert llm_api("jobs", "follow", job["id"]).stdout == "tick tick \n"
    events = [json.loads(line) for line in llm_api("jobs", "follow", job["id"], "--json").stdout.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("started", "end")
    assert "".join(event.get("text", "") for event in events) == "tick tick "


def test_a_job_is_canceled_and_run_again(service: Stack, llm_api: Typed) -> None:
    job_id = submitted(service)
    assert llm_api("jobs", "cancel", job_id).stdout.split()[0] == job_id
    until(lambda: parsed(llm_api("jobs", "show", job_id, "--json"))["status"] == "canceled")
    again = parsed(llm_api("jobs", "retry", "--json", job_id))[0]
    assert again["id"] != job_id
    llm_api("jobs", "cancel", again["id"])
    ran = llm_api("jobs", "follow", again["id"])
    assert (ran.exit_code, ran.stderr) == (1, "Error: the job is canceled\n")


def test_the_priority_of_a_waiting_job_is_changed(service: Stack, llm_api: Typed) -> None:
    job_id = submitted(service, not_before="+3600")
    assert llm_api("jobs", "priority", job_id, "high").stdout == f"{job_id} high\n"
    assert parsed(llm_api("jobs", "priority", job_id, "low", "--json"))["priority"] == "low"
    assert "priority  low\n" in llm_api("jobs", "show", job_id).stdout
    wrong = llm_api("jobs", "priority", job_id, "urgent")
    assert wrong.exit_code == 2 and "'high', 'normal', 'low'" in wrong.stderr
    llm_api("jobs", "cancel", job_id)
    late = llm_api("jobs", "priority", job_id, "high")
    assert (late.exit_code, late.stderr.count("\n")) == (1, 1) and "the job is canceled; only" in late.stderr


def test_a_job_is_shown_with_what_has_become_of_its_webhook(service: Stack, llm_api: Typed) -> None:
    job_id = submitted(service, not_before="+3600", webhook={"url": "http://127.0.0.1:1/"})
    assert "webhook" not in llm_api("jobs", "show", job_id).stdout
    llm_api("jobs", "cancel", job_id)
    until(lambda: parsed(llm_api("jobs", "show", job_id, "--json"))["webhook"]["tries"])
    assert re.search(
        r"^webhook +waiting, \d (try|tries): .+; next 20", llm_api("jobs", "show", job_id).stdout, re.MULTILINE
    )


@pytest.mark.parametrize("job_id", ["0f0e7c1c-6a53-4c3e-9d33-5a1b0c7d2e4f", "../jobs?x=1"])
def test_a_job_that_is_not_there_is_one_line(llm_api: Typed, job_id: str) -> None:
    for command in ("show", "follow", "cancel", "retry", "priority"):
        ran = llm_api("jobs", command, job_id, *(["low"] if command == "priority" else []))
        assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)


# --- batch ------------------------------------------------------------------------------------------------------------


def requests(folder: Path, *custom_ids: str, **body: Any) -> Path:
    line = {"method": "POST", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 2, **body}}
    file = folder / 'the "requests".jsonl'
    file.write_text("".join(json.dumps({"custom_id": custom_id, **line}) + "\n" for custom_id in custom_ids))
    return file


def test_a_file_of_requests_is_run_and_its_results_are_fetched(llm_api: Typed, tmp_path: Path) -> None:
    ran = llm_api("batch", "submit", str(requests(tmp_path, "a", "b")), "--wait", "--json")
    batch = parsed(ran)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 2)
    results = tmp_path / "results.jsonl"
    assert llm_api("batch", "fetch", batch["id"], "-o", str(results)).exit_code == 0
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in json_lines(results)}
    assert texts == {"a": "tick tick ", "b": "tick tick "}
    shown = llm_api("batch", "status", "--wait", batch["id"])
    assert "requests  2: 2 completed, 0 failed" in shown.stdout
    assert shown.stderr == f"\nits results: {own_command('batch fetch')} {batch['id']}\n"
    listed = llm_api("batch", "status").stdout.splitlines()[1].split()
    assert listed[:3] == [batch["id"], "completed", "2/2"]


def json_lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_results_of_a_batch_that_runs_are_refused_with_how_to_wait(llm_api: Typed, tmp_path: Path) -> None:
    file = requests(tmp_path, "a", max_tokens=5000, ignore_eos=True)
    batch = parsed(llm_api("batch", "submit", str(file), "--window", "1s", "--json"))
    ran = llm_api("batch", "fetch", batch["id"])
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == "Error: the batch still runs (0 of 1 are done); wait with --wait\n"
    ended = llm_api("batch", "fetch", "--wait", batch["id"])
    assert (ended.exit_code, json.loads(ended.stdout)["error"]["code"]) == (1, "batch_expired")
    assert ended.stderr == "Error: the batch is expired\n"


@pytest.mark.parametrize("content", ["", "no json\n", '{"custom_id": "1"}\n'])
def test_a_file_that_holds_no_requests_is_refused_before_it_is_sent(
    llm_api: Typed, tmp_path: Path, content: str
) -> None:
    (file := tmp_path / "x.jsonl").write_text(content)
    ran = llm_api("batch", "submit", str(file))
    assert ran.exit_code == 1 and f"{file}: the first line is no request; expected " in ran.stderr


def test_a_file_with_a_repeated_id_is_refused_with_its_line(llm_api: Typed, tmp_path: Path) -> None:
    ran = llm_api("batch", "submit", str(requests(tmp_path, "a", "a")))
    assert ran.exit_code == 1 and "Error: line 2: " in ran.stderr


# --- chat -------------------------------------------------------------------------------------------------------------


def test_a_chat_in_a_pipe_answers_each_line_and_obeys_commands(service: Stack, llm_api: Typed) -> None:
    lines = "/system Be brief.\nhello\n\nagain\n/reset\n/nonsense\n/exit\nnever\n"
    ran = llm_api("chat", "--json", "--max-tokens", "2", stdin=lines)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["text"] for answer in answers] == ["tick tick "] * 2
    assert "there is no /nonsense" in ran.stderr and "the conversation is forgotten" in ran.stderr


def test_a_chat_asks_for_as_many_tokens_as_fit_and_says_where_a_limit_has_ended_an_answer(
    llm_api: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = llm_api("chat", "--param", "n_predict=2", stdin="hello\n")
    assert ran.stdout == "tick tick \n"
    assert ran.stderr == "[ended at the limit of 2 tokens; --max-tokens N for more]\n"
    asked: list[Any] = []
    monkeypatch.setattr("app.cli.conversation.ask", lambda _client, request, _write: asked.append(request) or ENDED)
    ran = llm_api("chat", stdin="hello\n")
    assert asked[0]["params"] == {"max_tokens": -1}
    assert ran.stderr == "[ended after 2000 tokens: the context is full, or the API key allows no more]\n"


END = {"status": "succeeded", "finish_reason": "length", "usage": {"completion_tokens": 2000}}
ENDED = Answer("", "tick", JobEvent("1-0", "end", END))


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str, environ: dict[str, str]) -> None:
        self._screen, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *words],
            cwd=REPOSITORY, env=environ, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inside)
        self.shown, self._read = "", 0

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def read_until(self, text: str) -> None:
        """Read on until the terminal shows the text, after what earlier calls have waited for."""
        deadline = time.monotonic() + scaled(20)
        while text not in self.shown[self._read :]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
            if select.select([self._screen], [], [], 0.1)[0]:
                self.shown += os.read(self._screen, 4096).decode()
        self._read = self.shown.index(text, self._read) + len(text)

    def close(self) -> int:
        status = self.process.wait(scaled(20))
        os.close(self._screen)
        return status


def test_a_chat_in_a_terminal_is_stopped_by_a_line_and_by_ctrl_c_and_remembers_what_was_typed(
    environ: dict[str, str], tmp_path: Path, llm_api: Typed
) -> None:
    environ |= {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
    terminal = Terminal("chat", "--max-tokens", "5000", environ=environ)
    terminal.read_until("slow at http")
    terminal.read_until("> ")
    for stop in ("/stop\r", "\x03"):
        terminal.type("a question\r" if stop != "\x03" else "\x1b[A\r")
        terminal.read_until("tick tick ")
        terminal.type(stop)
        terminal.read_until("[stopped]")
        terminal.read_until("> ")
    assert terminal.shown.count("a question") >= 2, "the arrow brought the line back"
    terminal.type("\x04")
    assert terminal.close() == 0
    history = tmp_path / "llm-api" / "chat_history"
    assert "a question" in history.read_text() and history.stat().st_mode & 0o077 == 0
    statuses = {job["status"] for job in parsed(llm_api("jobs", "list", "--limit", "2", "--json"))}
    assert statuses == {"canceled"}, "what nobody reads is not computed to its end"


# --- where the service is ---------------------------------------------------------------------------------------------


def test_a_service_that_does_not_run_is_one_line_with_how_to_start_it(environ: dict[str, str]) -> None:
    ran = typed("models", "--url", f"localhost:{free_port()}", environ=environ)
    assert ran.exit_code == os.EX_UNAVAILABLE
    assert ran.stderr.count("\n") == 1
    assert (
        f"(Connection refused); start the service ({own_command('run')}), or name where it is with --url" in ran.stderr
    )


def test_a_missing_and_a_wrong_key_are_one_line_with_how_to_pass_it(environ: dict[str, str]) -> None:
    for key in ("", "wrong"):
        ran = typed("jobs", "list", environ=environ | {"LLM_API_KEY": key})
        assert ran.exit_code == os.EX_NOPERM
        assert ran.stderr.endswith("; pass it with --api-key or LLM_API_KEY\n")


def test_the_service_and_the_key_of_the_configuration_are_used_where_none_is_named(
    service: Stack, environ: dict[str, str]
) -> None:
    configured = {"LLM_API_CONFIG": str(service.folder / "config.yaml")}
    unnamed = {name: value for name, value in environ.items() if name not in ("LLM_API_URL", "LLM_API_KEY")}
    assert typed("models", environ=unnamed | configured).exit_code == 0
    ran = typed("models", "--url", service.url, environ=unnamed | configured)
    assert ran.exit_code == os.EX_NOPERM, "the key of the configuration goes to no address that was named"


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://a b", "http://x:99999"])
def test_an_address_that_is_none_is_a_wrong_command_line(url: str) -> None:
    assert typed("models", "--url", url).exit_code == 2
