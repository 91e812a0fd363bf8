"""Where commands find a run whose port came from the environment of its terminal."""

import os
from pathlib import Path

import pytest

from app.cli.preparation import sole_use_of
from app.cli.run_url import find_url
from app.cli.service_options import client_of

URL = "http://localhost:8111"


def test_a_command_finds_the_run_of_its_folder_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LLM_API_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with sole_use_of(Path("data"), URL):
        assert client_of(None, None).url == URL
        assert client_of("http://elsewhere", None).url == "http://elsewhere"
        monkeypatch.setenv("LLM_API_PORT", "8222")
        assert client_of(None, None).url == "http://localhost:8222", "named here, so it is another service"
        monkeypatch.delenv("LLM_API_PORT")
    assert client_of(None, None).url == "http://localhost:8000"


def test_a_folder_that_nothing_has_used_leaves_the_configured_port(tmp_path: Path) -> None:
    assert find_url({"LLM_API_DATA_DIR": str(tmp_path)}) == "http://localhost:8000"
