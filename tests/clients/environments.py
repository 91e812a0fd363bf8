"""The environments of the clients: each in a folder of .cache/clients, installed once for each set of versions.

An environment is complete when its stamp holds the digest of the files that name its versions.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.clients.catalog import FOLDER, Language

ENVIRONMENTS = FOLDER.parent.parent / ".cache" / "clients"
NODE = "node"  # Node.js out of a Python package: the current releases need a newer one than distributions have

_PYTHON_VERSIONS = "requirements.txt"
_NPM_VERSIONS = ("package.json", "package-lock.json")
_STAMP = "installed"


def is_installed(name: str) -> bool:
    """Whether the environment of the folder `name` has the versions that the folder names now."""
    stamp = ENVIRONMENTS / name / _STAMP
    return stamp.exists() and stamp.read_text() == _digest(name)


def install(name: str) -> None:
    """Install the environment of the folder `name` unless it is there.

    Raises:
        subprocess.CalledProcessError: pip or npm failed; its output is on the standard error.
    """
    if is_installed(name):
        return
    environment = ENVIRONMENTS / name
    shutil.rmtree(environment, ignore_errors=True)
    environment.mkdir(parents=True)
    if _language(name) is Language.PYTHON:
        _install_python(name, environment)
    else:
        install(NODE)
        _install_npm(name, environment)
    (environment / _STAMP).write_text(_digest(name))


def python(name: str) -> Path:
    return ENVIRONMENTS / name / "bin" / "python"


def node() -> Path:
    return ENVIRONMENTS / NODE / "bin" / "node"


def _language(name: str) -> Language:
    return Language.PYTHON if (FOLDER / name / _PYTHON_VERSIONS).exists() else Language.JAVASCRIPT


def _digest(name: str) -> str:
    files = (FOLDER / name / file for file in (_PYTHON_VERSIONS, *_NPM_VERSIONS))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def _install_python(name: str, environment: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python(name)), "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-compile"]
    subprocess.run([*pip, "--no-deps", "-r", str(FOLDER / name / _PYTHON_VERSIONS)], check=True)


def _install_npm(name: str, environment: Path) -> None:
    for file in _NPM_VERSIONS:
        shutil.copy(FOLDER / name / file, environment)
    npm = ENVIRONMENTS / NODE / "bin" / "npm"
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    subprocess.run([str(npm), "ci", "--ignore-scripts", *options], cwd=environment, check=True)
