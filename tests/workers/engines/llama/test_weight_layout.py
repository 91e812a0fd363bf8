"""Which files llama.cpp rearranges while it loads them."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter

from tests.stack import SMOLLM2_FILE
from workers.engines.llama import weight_layout
from workers.engines.llama.library import library_log
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.llama.weight_layout import is_rearranged

BLOCK_BYTES = {Type.Q4_0: 18, Type.Q4_K: 144, Type.Q6_K: 210, Type.IQ4_NL: 18}
TensorTypes = dict[str, Type]


def file_of(folder: Path, tensors: TensorTypes) -> Path:
    """Write 64 blocks of each."""
    writer = GGUFWriter(folder / "of_types.gguf", "llama")
    for name, kind in tensors.items():
        writer.add_tensor(name, np.zeros((64, BLOCK_BYTES[kind]), dtype=np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "of_types.gguf"


@pytest.fixture(autouse=True)
def no_amx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library_log()
    (tmp_path / "cpuinfo").write_text("flags: avx2 avx512f")
    monkeypatch.setattr(weight_layout, "_CPU_FLAGS", tmp_path / "cpuinfo")
    monkeypatch.setattr(weight_layout, "rows_kernel_types", lambda: frozenset({int(Type.Q4_K), int(Type.Q6_K)}))


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"output.weight": Type.Q6_K, "blk.0.ffn_up.weight": Type.Q4_K}, False),
        ({"blk.0.ffn_up.weight": Type.Q4_0}, True),
        ({"blk.0.ffn_up.weight": Type.IQ4_NL}, True),
        ({"blk.0.ffn_up.weight": Type.Q4_0, "blk.0.ffn_down.weight": Type.Q4_K}, False),
        ({"blk.0.ffn_up_exps.weight": Type.Q4_K, "blk.0.attn_q.weight": Type.Q4_K}, True),
    ],
)
def test_weights_stay_as_they_lie_in_the_file_where_most_are_q4_k(
    tmp_path: Path, tensors: TensorTypes, expected: bool
) -> None:
    assert is_rearranged(file_of(tmp_path, tensors)) is expected


def test_they_are_rearranged_without_a_kernel_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_layout, "rows_kernel_types", frozenset)
    assert is_rearranged(file_of(tmp_path, {"blk.0.ffn_up.weight": Type.Q4_K}))


def test_they_are_rearranged_for_amx(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags: avx512f amx_int8")
    assert is_rearranged(file_of(tmp_path, {"blk.0.ffn_up.weight": Type.Q4_K}))


def test_a_file_that_cannot_be_read_is_left_to_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    assert is_rearranged(tmp_path / "cut.gguf")


@pytest.fixture
def loaded_with(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What llama.cpp is asked for, of each model that is loaded."""
    seen: list[bool] = []
    load = Model._load

    def observed(self: Model, settings: ctypes.Structure, report: object) -> object:
        seen.append(settings.use_extra_bufts)  # type: ignore[attr-defined]
        return load(self, settings, report)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "_load", observed)
    return seen


def test_a_model_is_loaded_as_its_file_asks_for(loaded_with: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (True, False):
        monkeypatch.setattr("workers.engines.llama.model.is_rearranged", lambda _path, answer=answer: answer)
        Model(SMOLLM2_FILE, LlamaModelParams.read({}), lambda *_: None).close()
    assert loaded_with == [True, False]


def test_the_configuration_decides_otherwise(loaded_with: list[bool]) -> None:
    for raw in ({"repack": True}, {"repack": False}):
        Model(SMOLLM2_FILE, LlamaModelParams.read(raw), lambda *_: None).close()
    assert loaded_with == [True, False]
