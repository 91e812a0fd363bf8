"""What `make run` reports before anything is installed, by Python alone, and before llama.cpp is compiled."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config.server import ServerConfig
from tests.stack import ROOT, free_port

WITHOUT_PACKAGES = ("-I", "-S")  # as the machine's Python is: no site-packages
SCRIPT = str(ROOT / "deploy/make/first_look.py")


def looked(folder: Path, *options: str, script_options: tuple[str, ...] = (), **variables: str) -> tuple[int, str]:
    """Return the exit status and what is written to stderr, in a folder with or without a config.yaml."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("LLM_API_")}
    command = [sys.executable, *options, SCRIPT, *script_options]
    ended = subprocess.run(command, cwd=folder, env=kept | variables, stderr=subprocess.PIPE, text=True, check=False)
    return ended.returncode, ended.stderr


def test_the_port_that_it_looks_at_is_the_default_one() -> None:
    found = re.search(r"_DEFAULT_PORT = (\d+)", Path(SCRIPT).read_text())
    assert found is not None and int(found[1]) == ServerConfig().port


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield str(server.getsockname()[1])


@pytest.mark.parametrize("name", ["LLM_API_PORT", "LLM_API_SERVER__PORT", "llm_api_port"])
def test_a_taken_port_is_reported_without_any_package(tmp_path: Path, taken_port: str, name: str) -> None:
    status, line = looked(tmp_path, *WITHOUT_PACKAGES, **{name: taken_port})
    assert status == os.EX_CONFIG and line.count("\n") == 1
    assert f"taken by process {os.getpid()}, " in line


@pytest.mark.parametrize(
    "text", ["server:\n  port: {}\n", "port: {} # ours\n", 'server: {{"port": {}, "threads": 8}}\n']
)
def test_the_port_of_the_file_is_found_without_a_parser(tmp_path: Path, taken_port: str, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text.format(taken_port))
    assert looked(tmp_path, *WITHOUT_PACKAGES)[0] == os.EX_CONFIG
    assert looked(tmp_path, *WITHOUT_PACKAGES, LLM_API_PORT=str(free_port()))[0] == 0


@pytest.mark.parametrize("text", ["server:\n  host: 127.0.0.2\n  port: {}\n", "port: {0}\nx: {{port: {0}1}}\n"])
def test_what_only_a_parser_can_tell_is_no_fault_yet(tmp_path: Path, taken_port: str, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text.format(taken_port))
    assert looked(tmp_path, *WITHOUT_PACKAGES) == (0, "")


def test_a_file_that_is_missing_or_no_text_is_reported_without_any_package(tmp_path: Path) -> None:
    status, line = looked(tmp_path, *WITHOUT_PACKAGES, LLM_API_CONFIG="other.yaml", LLM_API_PORT=str(free_port()))
    assert (status, "other.yaml: no such file" in line) == (os.EX_CONFIG, True)
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    assert looked(tmp_path, *WITHOUT_PACKAGES)[1] == "config.yaml: is not UTF-8 text\n"


def test_the_whole_configuration_is_checked_with_the_packages_of_the_api(tmp_path: Path, taken_port: str) -> None:
    (tmp_path / "config.yaml").write_text("model_famly: llama\n")
    status, line = looked(tmp_path, script_options=("--whole",))
    assert status == os.EX_CONFIG and "did you mean model_family?" in line
    (tmp_path / "config.yaml").write_text(f"server: {{host: 127.0.0.1, port: {taken_port}}}\n")
    assert "is taken by process" in looked(tmp_path, script_options=("--whole",))[1]
    (tmp_path / "config.yaml").write_text(f"server: {{host: 127.0.0.1, port: {free_port()}}}\n")
    assert looked(tmp_path, script_options=("--whole",)) == (0, "")
