"""Damaged files: each is refused in one line, or it loads and serves. Nothing ends the process that loads it.

`python -m tests.workers.engines.llama.damaged_files` does the same with as many as you like (`make damaged-files`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.engines.llama.damaged_files import KINDS, DamagedFile, FileServer


@pytest.fixture(scope="module")
def damaged_file(tmp_path_factory: pytest.TempPathFactory) -> DamagedFile:
    return DamagedFile(tmp_path_factory.mktemp("damaged") / "model.gguf")


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_line_or_serves(
    damaged_file: DamagedFile, server: FileServer, kind: str
) -> None:
    with damaged_file.damaged(kind, seed=0) as path:
        verdict, line = server.serve(path)
    assert verdict in ("refused", "served"), line
    assert verdict == "served" or (str(path) in line and "\n" not in line)


def test_a_file_that_ends_llama_cpp_is_refused_with_the_line_that_it_leaves(
    damaged_file: DamagedFile, server: FileServer
) -> None:
    with damaged_file.damaged("repeated token", seed=0) as path:
        verdict, line = server.serve(path)
    assert verdict == "refused"
    assert "ends llama.cpp" in line and "GGML_ASSERT" in line


def test_the_undamaged_file_serves(damaged_file: DamagedFile, server: FileServer) -> None:
    assert server.serve(Path(damaged_file.path)) == ("served", " Paris.\n\n")
