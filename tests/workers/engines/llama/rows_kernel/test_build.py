"""Building the kernel of several rows."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from workers.engines.llama.rows_kernel import build


def test_it_is_built_where_tarfile_has_no_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Debian 12's own Python, 3.11.2: filters came with 3.11.4."""
    for method in ("extract", "extractall"):
        was = getattr(tarfile.TarFile, method)

        def without_filter(self: Any, *args: Any, was: Any = was) -> None:
            was(self, *args)

        monkeypatch.setattr(tarfile.TarFile, method, without_filter)
    monkeypatch.delattr(tarfile, "data_filter")
    assert build.build(tmp_path) is None
    assert build.library_file(tmp_path).exists()
    assert [path.name for path in tmp_path.iterdir()] == [build.library_file(tmp_path).name]
