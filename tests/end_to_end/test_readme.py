"""Every curl of the README, as it stands there, against the running service."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable

import httpx
import pytest

from tests.end_to_end.test_main_job import GREEDY, parse_events
from tests.stack import ROOT, Stack

Check = Callable[[str], bool]


def curls() -> list[str]:
    """The curl commands of the README's code blocks, comments and line continuations removed."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(shlex.split(line, comments=True, posix=False)) for line in lines if line.startswith("curl")]


def is_text(output: str) -> bool:
    return isinstance(json.loads(output), str)


def is_job(output: str) -> bool:
    return bool(json.loads(output[output.index("{") :])["object"] == "job")


def is_stream(output: str) -> bool:
    return all("data" in event for event in parse_events(output)) and output != ""


WHAT_THE_README_SAYS: dict[str, Check] = {
    "/generate": is_text,
    '"stream": true': is_stream,
    "curl -i": is_job,
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
    "DELETE": lambda output: output == "",
    "/jobs?": lambda output: json.loads(output)["object"] == "list",
    "/jobs/JOB": is_job,
    "/check": lambda output: json.loads(output) == "Ok",
    "/healthz": lambda output: json.loads(output)["status"] == "ok",
    "/readyz": lambda output: json.loads(output)["status"] == "ready",
    "/v1/models": lambda output: json.loads(output)["object"] == "list",
    "/openapi.json": lambda output: json.loads(output)["openapi"].startswith("3.1"),
}


def test_the_readme_has_a_curl_for_every_endpoint(http: httpx.Client) -> None:
    shown = "\n".join(curls())
    paths = [path for path in http.get("/openapi.json").json()["paths"] if not path.startswith("/v1/models/")]
    missing = [path for path in paths if path.replace("{job_id}", "JOB").replace("{id}", "JOB") not in shown]
    assert missing == []


@pytest.mark.parametrize("command", curls())
def test_a_curl_of_the_readme_gives_what_the_readme_says(smollm2: Stack, http: httpx.Client, command: str) -> None:
    if shutil.which("curl") is None:
        assert not os.environ.get("CI"), "CI needs curl"
        pytest.skip("curl is not installed")
    check = next(check for mark, check in WHAT_THE_README_SAYS.items() if mark in command)
    job = http.post("/agenerate", json={"prompt": "The capital of France is", "params": GREEDY}).json()["id"]
    http.get(f"/jobs/{job}", params={"wait": 30})
    runnable = command.replace("http://localhost:8000", smollm2.url).replace("JOB", job)
    done = subprocess.run(
        ["bash", "-c", runnable.replace("curl ", "curl -sS --fail-with-body ", 1)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert check(done.stdout), done.stdout
