"""aider, really as the command-line program that its users type, on a file of its own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from client_program import BASE_URL, KEY, SERVICE, not_offered, play, scene

HOME = Path(tempfile.mkdtemp(prefix="aider-client-"))
MODEL = f"openai/{SERVICE.model}"
LIMITS = {"max_tokens": SERVICE.context_tokens, "max_input_tokens": SERVICE.context_tokens, "max_output_tokens": 200}
(HOME / "limits.json").write_text(json.dumps({MODEL: {**LIMITS, "litellm_provider": "openai", "mode": "chat"}}))
(HOME / "settings.yml").write_text(json.dumps([{"name": MODEL, "extra_params": {"max_tokens": 60}}]))
QUESTION = "What is the capital of France?"


def run(*arguments: str) -> str:
    """Run the program with one message, and return what it prints. Nothing but the service is asked."""
    command = [str(Path(sys.prefix) / "bin" / "aider"), "--model", MODEL, "--openai-api-base", BASE_URL]
    command += [
        "--openai-api-key",
        KEY,
        "--model-metadata-file",
        "limits.json",
        "--model-settings-file",
        "settings.yml",
    ]
    command += ["--no-git", "--yes-always", "--no-pretty", "--no-fancy-input", "--map-tokens", "0"]
    command += ["--no-check-update", "--no-show-release-notes", "--analytics-disable", "--no-show-model-warnings"]
    ran = subprocess.run(
        [*command, *arguments],
        cwd=HOME,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        # litellm, which aider asks through, otherwise downloads a list of prices
        env=os.environ | {"HOME": str(HOME), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    assert ran.returncode == 0, ran.stderr
    assert "litellm." not in ran.stdout, ran.stdout  # errors of the service are printed, and the status is 0
    return ran.stdout


@scene
def chat() -> None:
    printed = run("--edit-format", "ask", "--no-stream", "--message", QUESTION)
    assert "received" in printed, printed


@scene
def stream() -> None:
    printed = run("--edit-format", "ask", "--stream", "--message", QUESTION)
    assert "received" in printed, printed


@scene
def an_edit_is_asked_for() -> None:
    """The prompt of whole-file edits is accepted and the answer read; the edit is more than the model can do."""
    (HOME / "hello.py").write_text('print("Hello")\n')
    printed = run("--edit-format", "whole", "--stream", "--message", "Print Bonjour instead.", "hello.py")
    assert "received" in printed, printed


not_offered("tools", "aider edits by text")
not_offered("structured_output", "aider edits by text")
not_offered("embeddings", "aider has no embeddings")

if __name__ == "__main__":
    play()
