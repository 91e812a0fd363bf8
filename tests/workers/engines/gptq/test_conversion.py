"""A pickled checkpoint becomes safetensors once, whole or not at all."""

import os
from pathlib import Path

import pytest
import torch

from app.errors import ModelUnavailable
from tests.workers.engines.gptq.driver import logits, make_engine
from tests.workers.engines.gptq.packing import Recipe, tiny_quantized
from workers.engines.gptq.conversion import converted


class Planted:
    """Code that would run where a pickle is trusted."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("planted",)


def silent(*_: object) -> None: ...


def test_a_pt_file_gives_the_model_of_the_same_safetensors(tmp_path: Path) -> None:
    pickled, _ = tiny_quantized(tmp_path / "pt", Recipe(symmetric=False, ordered=True), "llama-4bit.pt")
    plain, _ = tiny_quantized(tmp_path / "plain", Recipe(symmetric=False, ordered=True))
    tokens = [5, 80, 33, 61]
    output = logits(make_engine(pickled, tmp_path / "models"), tokens)
    assert torch.equal(output, logits(make_engine(plain, tmp_path / "models"), tokens))


def test_a_file_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"state_dict": {"a": torch.arange(3), "steps": 7}}, file)
    first = converted(file, tmp_path / "models", silent)
    made = first.stat().st_mtime_ns
    assert converted(file, tmp_path / "models", silent) == first
    assert first.stat().st_mtime_ns == made
    torch.save({"a": torch.arange(40)}, file)
    assert converted(file, tmp_path / "models", silent) != first


def test_a_conversion_that_was_cut_short_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.pt"
    torch.save({"a": torch.arange(1000)}, file)

    def cut_short(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", cut_short)
        with pytest.raises(KeyboardInterrupt):
            converted(file, tmp_path / "models", silent)
    assert not list((tmp_path / "models").rglob("model.safetensors"))
    assert converted(file, tmp_path / "models", silent).stat().st_size > 8000


def test_tensors_that_share_memory_are_each_written(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shared = torch.arange(12).reshape(3, 4)
    torch.save({"whole": shared, "turned": shared.t(), "row": shared[1]}, tmp_path / "model.pt")
    tensors = load_file(converted(tmp_path / "model.pt", tmp_path / "models", silent))
    assert tensors["turned"].tolist() == shared.t().tolist()
    assert tensors["row"].tolist() == [4, 5, 6, 7]


def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Planted()}, tmp_path / "model.pt")
    with pytest.raises(ModelUnavailable, match="more than tensors") as caught:
        converted(tmp_path / "model.pt", tmp_path / "models", silent)
    assert "\n" not in caught.value.detail
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle at all", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"model.pt") as caught:
        converted(tmp_path / "model.pt", tmp_path / "models", silent)
    assert "\n" not in caught.value.detail


def test_a_file_without_tensors_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(ModelUnavailable, match="holds no tensors by name"):
        converted(tmp_path / "model.pt", tmp_path / "models", silent)
