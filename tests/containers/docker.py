"""Docker's command line."""

import json
import subprocess
from collections.abc import Mapping
from os import environ
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_ERROR_LINES = 12


class Failure(Exception):
    """A promise that was not kept, in one line; more lines are output of Docker."""


def docker(*words: str, folder: Path = ROOT, variables: Mapping[str, str] = {}, seconds: float = 300) -> str:
    """Return what the command prints. Raises Failure with the end of its errors."""
    environment = {**environ, "BUILDKIT_PROGRESS": "plain", **variables}
    ran = subprocess.run(
        ["docker", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if ran.returncode:
        last = "\n".join(ran.stderr.splitlines()[-_ERROR_LINES:])
        raise Failure(f"docker {' '.join(words)} exited with status {ran.returncode}\n{last}")
    return ran.stdout.strip()


def logs(container: str, lines: int = 20) -> str:
    """Return the last lines that a container printed, to whichever output."""
    command = ["docker", "logs", "--tail", str(lines), container]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout.strip()


def inspect(name: str) -> Any:
    """Return what Docker knows of a container or an image."""
    return json.loads(docker("inspect", name))[0]


def kill_9(container: str, program: str) -> None:
    """Send SIGKILL to the processes of a container whose command line contains `program`, as the OOM killer does.

    `docker kill` would count as a stop by hand, after which Docker does not restart the container.
    """
    code = (
        "import os, pathlib, signal, sys\n"
        "for file in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    words = file.read_text().split(chr(0))\n"
        "    if words[0].endswith('python') and sys.argv[1] in words and int(file.parent.name) != os.getpid():\n"
        "        os.kill(int(file.parent.name), signal.SIGKILL)\n"
    )
    user = inspect(container)["Config"]["User"] or "0"
    docker("exec", "--user", user, container, "python", "-c", code, program)
