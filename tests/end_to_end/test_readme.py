"""Every curl command of the README and of docs/, exactly as printed there, against the running service."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.access.api_key import ApiKey, Scope
from app.access.authentication import CACHED_SECONDS
from app.access.key_store import KeyStore
from app.jobs.redis_client import connect
from tests.documentation import blocks, curls
from tests.end_to_end.test_main_job import GREEDY, parse_events
from tests.stack import Stack
from tests.waiting import scaled
from tests.workers.engines.llama.adapters import write_adapter

Check = Callable[[str], bool]
ADMIN = "YOUR_ADMIN_KEY"
FRESH_SECONDS = CACHED_SECONDS + 0.1  # until each process knows that keys are needed, or that none is


def is_text(output: str) -> bool:
    return isinstance(json.loads(output), str)


def is_job(output: str) -> bool:
    return bool(json.loads(output[output.index("{") :])["object"] == "job")


def is_stream(output: str) -> bool:
    return all("data" in event for event in parse_events(output)) and output != ""


def content_of(output: str) -> str:
    """Return what a chat answers."""
    content: str = json.loads(output)["choices"][0]["message"]["content"]
    return content


EXPECTED: dict[str, Check] = {
    "/rotate": lambda output: json.loads(output)["key"].startswith("llm-"),
    "/admin/keys": lambda output: json.loads(output)["object"] in ("api_key", "list"),
    "PATCH": lambda output: json.loads(output)["priority"] == "high",
    "starting_after": lambda output: "response.completed" in output or "response.incomplete" in output,
    "DELETE http://localhost:8000/v1/": lambda output: json.loads(output)["deleted"],
    "/input_tokens": lambda output: json.loads(output)["input_tokens"] > 7,
    "/v1/responses": lambda output: json.loads(output)["object"] == "response",
    "/content": lambda output: [json.loads(line)["custom_id"] for line in output.splitlines()] == ["1", "2"],
    "/v1/files": lambda output: json.loads(output)["object"] in ("file", "list"),
    "/v1/batches": lambda output: json.loads(output)["object"] in ("batch", "list"),
    "not_before": lambda output: is_job(output) and json.loads(output)["queue_position"] is None,
    "/generate": is_text,
    '"stream": true': is_stream,
    '"not_before"': lambda output: json.loads(output)["status"] == "queued",
    "curl -i": is_job,
    "response_format": lambda output: set(json.loads(content_of(output))) == {"name", "age"},
    "What is the capital of France?": lambda output: "The capital of France is Paris." in output,
    "/v1/chat/completions": lambda output: json.loads(output)["object"] == "chat.completion",
    "/v1/completions": lambda output: json.loads(output)["object"] == "text_completion",
    "/v1/embeddings": lambda output: len(json.loads(output)["data"]) == 2,
    "/tokenize": lambda output: json.loads(output)["count"] == 2,
    "/detokenize": lambda output: json.loads(output)["text"] == "Hello world",
    "/embeddings": lambda output: isinstance(json.loads(output)[0], float),
    "wait=30": lambda output: json.loads(output)["status"] == "succeeded",
    "Last-Event-ID": lambda output: '"end"' not in output and is_stream(output),
    "/events": is_stream,
    "/cancel": is_job,
    "/retry": is_job,
    "DELETE": lambda output: output == "",
    "format=csv": lambda output: output.startswith("day,key,key_name,requests,"),
    "/usage": lambda output: json.loads(output)["object"] == "usage",
    "/jobs?": lambda output: json.loads(output)["object"] == "list",
    "/jobs/JOB": is_job,
    "/check": lambda output: json.loads(output) == "Ok",
    "/load_lora_adapter": lambda output: output == "Success: LoRA adapter 'sql' added successfully.",
    "/unload_lora_adapter": lambda output: output == "Success: LoRA adapter 'sql' removed successfully.",
    "/metrics": lambda output: "llm_api_workers{" in output,
    "/healthz": lambda output: json.loads(output)["status"] == "ok",
    "/readyz": lambda output: json.loads(output)["status"] == "ready",
    "/v1/models": lambda output: json.loads(output)["object"] == "list",
    "/openapi.json": lambda output: json.loads(output)["openapi"].startswith("3.1"),
}


def requests() -> str:
    """The file of requests in the documentation."""
    (shown,) = blocks("jsonl")
    return shown


def ended_job(http: httpx.Client) -> str:
    job: str = http.post("/agenerate", json={"prompt": "The capital of France is", "params": GREEDY}).json()["id"]
    http.get(f"/jobs/{job}", params={"wait": 30})
    return job


def file(http: httpx.Client) -> str:
    answer = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", requests().encode())})
    return str(answer.json()["id"])


def unfinished_batch(http: httpx.Client) -> str:
    """The id of a batch that runs until its completion window ends."""
    body = {"prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": True}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
    sent = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", json.dumps(line).encode())})
    batch = {"input_file_id": sent.json()["id"], "endpoint": "/v1/completions", "completion_window": "2s"}
    return str(http.post("/v1/batches", json=batch).json()["id"])


def waiting_job(http: httpx.Client) -> str:
    job: str = http.post("/agenerate", json={"prompt": "Once upon a time", "not_before": "+3600"}).json()["id"]
    return job


MAKE: dict[str, Callable[[httpx.Client], str]] = {
    "WAITING": waiting_job,
    "JOB": ended_job,
    "FILE": file,
    "BATCH": unfinished_batch,
    "RESPONSE": lambda http: str(http.post("/v1/responses", json={"input": "Hi", "max_output_tokens": 8}).json()["id"]),
}


@pytest.fixture
def adapter(smollm2: Stack, http: httpx.Client) -> Callable[[bool], None]:
    """A function that makes the file of an adapter, and loads or unloads it."""
    file = smollm2.folder / "models" / "sql-lora.gguf"
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        write_adapter(file)

    def prepare(is_loaded: bool) -> None:
        http.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})
        if is_loaded:
            http.post("/v1/load_lora_adapter", json={"lora_name": "sql", "lora_path": file.name}).raise_for_status()

    return prepare


def test_the_documentation_has_a_curl_for_every_endpoint(http: httpx.Client) -> None:
    shown = "\n".join(curls())
    paths = [path for path in http.get("/openapi.json").json()["paths"] if not path.startswith("/v1/models/")]
    missing = [path for path in paths if re.sub(r"{(\w+)_id}", lambda name: name[1].upper(), path) not in shown]
    assert missing == []


@pytest.mark.parametrize("command", [command for command in curls() if ADMIN not in command])
def test_a_curl_of_the_documentation_returns_what_it_promises(
    smollm2: Stack, http: httpx.Client, command: str, tmp_path: Path, adapter: Callable[[bool], None]
) -> None:
    runnable = command.replace("http://localhost:8000", smollm2.url)
    if "lora_adapter" in command:
        adapter("/unload" in command)
    for name, make in MAKE.items():
        if name in command:
            runnable = runnable.replace(name, make(http))
    run(command, runnable, tmp_path)


def test_the_curls_for_admins_return_what_they_promise(smollm2: Stack, http: httpx.Client, tmp_path: Path) -> None:
    store = KeyStore(connect(smollm2.redis_url))
    _, secret = store.create(ApiKey(id="", name="root", digest="", scopes=frozenset(Scope)))
    try:
        time.sleep(FRESH_SECONDS)
        for number, command in enumerate(command for command in curls() if ADMIN in command):
            key, _ = store.create(ApiKey(id="", name=f"key{number}", digest=""))
            runnable = command.replace("http://localhost:8000", smollm2.url)
            run(command, runnable.replace(ADMIN, secret).replace("KEY", key.id), tmp_path)
    finally:
        for key in store.list_keys(limit=100, with_revoked=True)[0]:
            store.revoke(key.id, forget=True)
        time.sleep(FRESH_SECONDS)
    assert http.get("/jobs").status_code == 200, "the other tests send no key"


def run(command: str, runnable: str, folder: Path) -> None:
    """Run a command and check what it prints. runnable: the command for the service of the test."""
    if shutil.which("curl") is None:
        assert not os.environ.get("CI"), "CI needs curl"
        pytest.skip("curl is not installed")
    check = next(check for mark, check in EXPECTED.items() if mark in command)
    (folder / "requests.jsonl").write_text(requests())
    done = subprocess.run(
        ["bash", "-c", runnable.replace("curl ", "curl -sS --fail-with-body ", 1)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert check(done.stdout), done.stdout
