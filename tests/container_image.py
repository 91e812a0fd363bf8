"""An image of the Dockerfile without an engine: its files, its packages, its environment and its exact commands.

A stage is read with the stages it stands on. `unpack` puts what the Dockerfile copies into a folder and links what it
installs, and nothing else, into a site-packages of its own; `start` and `healthcheck` run there.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.waiting import scaled

ROOT = Path(__file__).parents[1]
Instruction = tuple[str, str]


@dataclass
class Stage:
    parent: str
    instructions: list[Instruction] = field(default_factory=list)


def read_stages(dockerfile: Path) -> dict[str, Stage]:
    """Return the stages by name; "" holds what comes before the first. An instruction is its verb and the rest."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    current = Stage(parent="")
    stages = {"": current}
    for line in filter(None, map(str.strip, text.splitlines())):
        verb, rest = line.split(maxsplit=1)
        if verb == "FROM":
            parent, _, name = rest.split()
            current = stages[name] = Stage(parent)
        else:
            current.instructions.append((verb, rest))
    return stages


class Image:
    """One target of the Dockerfile."""

    def __init__(self, target: str, dockerfile: Path = ROOT / "Dockerfile") -> None:
        stages = read_stages(dockerfile)
        self._instructions: list[Instruction] = []
        defaults = dict(rest.split("=", 1) for verb, rest in stages[""].instructions if verb == "ARG")
        while target:
            self._instructions = stages[target].instructions + self._instructions
            parent = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], stages[target].parent)
            target = parent if parent in stages else ""

    def last(self, verb: str) -> str:
        return self.all(verb)[-1]

    def all(self, verb: str) -> list[str]:
        return [rest for name, rest in self._instructions if name == verb]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for rest in self.all("ENV") for pair in shlex.split(rest)]
        return {name: value for name, _, value in pairs}

    @property
    def entrypoint(self) -> list[str]:
        """The exec form of the entrypoint; with the shell form, a shell would receive the signals of process 1."""
        command: list[str] = json.loads(self.last("ENTRYPOINT"))
        return command

    @property
    def command(self) -> list[str]:
        """What is run without further words: the entrypoint, and the arguments of CMD."""
        arguments: list[str] = json.loads(self.last("CMD")) if self.all("CMD") else []
        return self.entrypoint + arguments

    @property
    def health_command(self) -> list[str]:
        command: list[str] = json.loads(self.last("HEALTHCHECK").partition(" CMD ")[2])
        return command

    def unpack(self, folder: Path) -> "Container":
        root, packages, programs = folder / "llm-api", folder / "site-packages", folder / "bin"
        for made in (root, packages, programs, folder / "models", folder / "data"):
            made.mkdir(parents=True)
        for rest in self.all("COPY"):
            source, target = rest.split()[-2:]
            if not rest.startswith("--from") and not target.startswith("/"):
                _copy(source, target, into=root)
        for name in self._installed(root):
            _link(name, packages)
        python = programs / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')  # -S: no other site-packages
        init = programs / "tini"
        init.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')  # signals reach the program itself, as tini passes them on
        owner = programs / "as-owner-of-models"
        owner.write_text('#!/bin/sh\nexec "$@"\n')  # as with `docker run --user`
        for program in (python, init, owner):
            program.chmod(0o755)
        return Container(self, folder)

    def _installed(self, root: Path) -> set[str]:
        """Return the distributions that the `uv pip install` commands name in a file."""
        names: set[str] = set()
        for rest in self.all("RUN"):
            for command in rest.split("&&"):
                words = shlex.split(command)
                if "install" in words and "pip" in words:
                    names |= {name for file in _after("-r", words) for name in _requirements(root / file)}
        return names


@dataclass
class Container:
    """An unpacked image; the user's `environment` overrides the image's."""

    image: Image
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def _environ(self) -> dict[str, str]:
        here = {
            "PATH": f"{self.folder / 'bin'}:{os.defpath}",
            "PYTHONPATH": str(self.folder / "site-packages"),
            "LLM_API_MODELS_DIR": str(self.folder / "models"),
            "LLM_API_DATA_DIR": str(self.folder / "data"),
        }
        return self.image.environment | here | self.environment

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                self.image.command,
                cwd=self.folder / "llm-api",
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def healthcheck(self) -> "subprocess.CompletedProcess[str]":
        return self.run(self.image.health_command)

    def run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.folder / "llm-api",
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=scaled(20),
            check=False,
        )


def _copy(source: str, target: str, *, into: Path) -> None:
    here, there = ROOT / source, into / target
    if here.is_dir():
        shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        return
    file = there / here.name if target.endswith("/") else there
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(here, file)


def _link(name: str, packages: Path) -> None:
    installed = distribution(name)
    for top in {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}:
        link = packages / top
        if not link.exists():
            link.symlink_to(Path(str(installed.locate_file(top))))


def _after(option: str, words: list[str]) -> list[str]:
    return [value.rstrip(";") for word, value in itertools.pairwise(words) if word == option]


def _requirements(file: Path) -> set[str]:
    """Return the distributions that a file of `make lock` names for this machine; a continued line has a hash."""
    lines = [line.rstrip(" \\") for line in file.read_text().splitlines() if re.match(r"\w", line)]
    wanted = [Requirement(line) for line in lines]
    return {one.name for one in wanted if one.marker is None or one.marker.evaluate()}
