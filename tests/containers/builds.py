"""Building the images: how long it takes, how large they are, and that a change of code takes seconds."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.containers.docker import ROOT, Failure, docker, inspect

TARGETS = ("all", "api", "worker", "worker-transformers", "forwarder")
REBUILD_SECONDS = 30
_TITLE = "org.opencontainers.image.title"
_BUILD_SECONDS = 3 * 3600


def image(target: str) -> str:
    """Return the name that the compose files have for the image of a target."""
    return f"llm-api-{target}"


def build(target: str, options: Sequence[str], folder: Path = ROOT, tag: str = "") -> str:
    """Build one image and return its time and size in words."""
    started = time.monotonic()
    docker(
        "build", "--target", target, "-t", tag or image(target), *options, ".", folder=folder, seconds=_BUILD_SECONDS
    )
    built = inspect(tag or image(target))
    if built["Config"]["Labels"].get(_TITLE) != "LLM API":
        raise Failure(f"{image(target)} has no label {_TITLE}")
    return f"{time.monotonic() - started:.0f} s, {built['Size'] / 1e6:.0f} MB"


def rebuild_after_a_change(target: str, options: Sequence[str]) -> str:
    """Change a line of code in a copy of the source, build it, and return the time in words."""
    with tempfile.TemporaryDirectory() as copy:
        for name in ("app", "workers", "deploy"):
            shutil.copytree(ROOT / name, Path(copy) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Dockerfile", ".dockerignore", "requirements.txt", "config.yaml"):
            shutil.copy(ROOT / name, copy)
        with (Path(copy) / "app/errors.py").open("a") as code:
            code.write(f"# {time.time()}\n")
        started = time.monotonic()
        build(target, options, Path(copy), tag="llm-api-changed")
        seconds = time.monotonic() - started
        docker("image", "rm", "llm-api-changed")
    if seconds > REBUILD_SECONDS:
        raise Failure(f"a changed line rebuilds {target} in {seconds:.0f} s, more than {REBUILD_SECONDS} s")
    return f"{seconds:.1f} s"
