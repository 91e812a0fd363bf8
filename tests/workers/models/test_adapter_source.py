"""What a client of the API may name as an adapter: files in `models_dir`, and repositories."""

from pathlib import Path

import pytest

from app.errors import ModelUnavailable
from workers.models.adapter_source import runtime_adapter


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A folder with adapters, which links lead out of."""
    root, outside = tmp_path / "models", tmp_path / "outside"
    for folder in (root / "folder", root / "linked", outside / "folder"):
        folder.mkdir(parents=True)
    for file in (root / "a.gguf", outside / "secret.gguf", outside / "folder" / "x", root / "folder" / "x"):
        file.touch()
    (root / "inner.gguf").symlink_to("a.gguf")
    (root / "file-out.gguf").symlink_to(outside / "secret.gguf")
    (root / "folder-out").symlink_to(outside / "folder")
    (root / "linked" / "adapter_model.safetensors").symlink_to(outside / "secret.gguf")
    (root / "circle").symlink_to("circle")
    return root


@pytest.mark.parametrize("source", ["a.gguf", "./a.gguf", "folder", "folder/../a.gguf", "inner.gguf"])
def test_a_path_in_models_dir_is_taken_relative_or_absolute(models_dir: Path, source: str) -> None:
    for named in (source, str(models_dir / source)):
        adapter = runtime_adapter(models_dir, "sql", named, "1")
        assert adapter.path == str((models_dir / source).resolve())
        assert (adapter.repo_id, adapter.version) == (None, "1")


@pytest.mark.parametrize(
    "source",
    ["/etc/passwd", "../outside/secret.gguf", "a/../../outside/folder", ".", "/", "..", "~/x.gguf", "/nowhere",
     "file-out.gguf", "folder-out", "folder-out/x", "linked", "./linked/adapter_model.safetensors"],
)  # fmt: skip
def test_a_path_out_of_models_dir_is_refused_also_through_links(models_dir: Path, source: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"must lie in models_dir|there is no") as caught:
        adapter = runtime_adapter(models_dir, "sql", source, "1")
        assert adapter.path is not None and not Path(adapter.path).exists(), adapter
        raise ModelUnavailable("there is no such file")  # as `locate_adapter` does
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("source", ["circle/x", "x" * 5000, "a\0b", "word", "a/../b", "one/two/../three"])
def test_what_is_neither_a_path_nor_a_repository_is_refused_in_one_line(models_dir: Path, source: str) -> None:
    with pytest.raises(ModelUnavailable, match="lora_path") as caught:
        runtime_adapter(models_dir, "sql", source, "1")
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("source", "repo_id", "filename"),
    [("owner/name", "owner/name", None), ("owner/name/a.gguf", "owner/name", "a.gguf"), ("o/n/b/a", "o/n", "b/a")],
)
def test_a_repository_is_named_with_a_file_or_without(
    models_dir: Path, source: str, repo_id: str, filename: str | None
) -> None:
    adapter = runtime_adapter(models_dir, "sql", source, "1")
    assert (adapter.path, adapter.repo_id, adapter.filename) == (None, repo_id, filename)
