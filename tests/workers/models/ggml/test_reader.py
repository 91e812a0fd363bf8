"""Old files that are whole, damaged, cut short, or of something else: each error is one line that says what to do."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ModelUnavailable
from tests.workers.models.ggml.old_files import (
    F16,
    F32,
    GGJT_1,
    GGJT_2,
    GGJT_3,
    GGMF,
    GGML,
    Q4_0,
    Q4_2,
    Q4_3,
    Kind,
    write_old_file,
)
from tests.workers.models.ggml.tiny_llama import HEADS, HIDDEN, LAYERS, VOCABULARY, WIDTH, shapes
from workers.models.ggml.formats import OldFormat, UnknownVersion, old_format
from workers.models.ggml.reader import read_model

KINDS = {"GGML": GGML, "GGMF version 1": GGMF}
KINDS |= {f"GGJT version {version}": kind for version, kind in ((1, GGJT_1), (2, GGJT_2), (3, GGJT_3))}


def refused(path: Path) -> str:
    """Return the one line with which the file is refused."""
    with pytest.raises(ModelUnavailable) as caught:
        read_model(path)
    assert "\n" not in caught.value.detail and str(path) in caught.value.detail
    return caught.value.detail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "old.bin"


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_recognised_and_read(path: Path, name: str) -> None:
    write_old_file(path, KINDS[name], F32, key_value_heads=2)
    found = old_format(path)
    assert isinstance(found, OldFormat) and found.label.startswith(f"{name} file")
    model = read_model(path)
    assert (model.width, model.heads, model.layers, model.hidden) == (WIDTH, HEADS, LAYERS, HIDDEN)
    assert model.key_value_heads == 2 and len(model.tokens) == VOCABULARY
    assert {name: tensor.shape[::-1] for name, tensor in model.tensors.items()} == shapes(2)


def test_other_files_are_none_of_these(path: Path) -> None:
    for content in (b"", b"lmg", b"GGUF" + bytes(100), b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        assert old_format(path) is None
    assert old_format(path.parent) is None and old_format(path.parent / "missing") is None


@pytest.mark.parametrize(("magic", "name"), [(b"fmgg", "GGMF"), (b"tjgg", "GGJT")])
def test_an_unknown_version_is_told_apart(path: Path, magic: bytes, name: str) -> None:
    path.write_bytes(magic + struct.pack("<I", 100))
    assert old_format(path) == UnknownVersion(name, 100)


@pytest.mark.parametrize(("weights", "name"), [(Q4_2, "Q4_2"), (Q4_3, "Q4_3")])
def test_types_that_gguf_does_not_have_are_named(path: Path, weights: int, name: str) -> None:
    write_old_file(path, GGJT_1, weights)
    assert f"weights of type {name}" in (line := refused(path)) and "fetch a GGUF file of the same model" in line


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_file_that_is_cut_short_anywhere_is_refused(path: Path, kind: Kind) -> None:
    write_old_file(path, kind, Q4_0)
    whole = path.read_bytes()
    rng = random.Random(kind.magic)
    sizes = [8, 9, 40, 1000, *(rng.randrange(12, len(whole)) for _ in range(40)), len(whole) - 1]
    for size in sizes:
        path.write_bytes(whole[:size])
        assert "download it again" in refused(path)


def test_a_file_that_ends_between_two_tensors_is_refused(path: Path) -> None:
    write_old_file(path, only=lambda name: name != "output.weight")
    assert "its tensor output.weight is missing" in refused(path)
    write_old_file(path, only=lambda name: "layers" not in name)
    assert "its tensor" in refused(path) or "tensors for" in refused(path)


HEADERS = [
    {"n_vocab": 2**32 - 1},
    {"n_vocab": VOCABULARY - 1},
    {"n_embd": 0},
    {"n_embd": 2**32 - 4},
    {"n_head": 0},
    {"n_head": 3},
    {"n_head": 2**32 - 1},
    {"n_layer": 0},
    {"n_layer": 1},
    {"n_layer": 2**32 - 1},
    {"n_rot": 0},
]


@pytest.mark.parametrize("numbers", HEADERS, ids=str)
def test_numbers_that_do_not_fit_are_refused_at_once(path: Path, numbers: dict[str, int]) -> None:
    write_old_file(path, numbers=numbers)
    assert "download it again" in refused(path)


def test_a_part_of_a_model_is_refused(path: Path) -> None:
    write_old_file(path, GGML, F16, numbers={"n_embd": 2 * WIDTH, "n_head": 2 * HEADS})
    assert "one of 2 parts" in refused(path)


def test_another_kind_of_model_is_refused(path: Path) -> None:
    for content in (b"lmgg" + struct.pack("<11I", 51864, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1), b"lmgg" + bytes(500)):
        path.write_bytes(content)
        assert "GGML file" in refused(path)


def _flipped(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(8, 4000)] ^= 1 << rng.randrange(8)


def _zeros(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(8, 4000)
    data[start : start + 64] = bytes(64)


@pytest.mark.parametrize("damage", [_flipped, _zeros])
def test_a_damaged_file_is_refused_or_is_whole_in_form(
    path: Path, damage: Callable[[random.Random, bytearray], None]
) -> None:
    write_old_file(path, GGJT_3, Q4_0)
    whole = path.read_bytes()
    for seed in range(100):
        data = bytearray(whole)
        damage(random.Random(seed), data)
        path.write_bytes(data)
        try:
            model = read_model(path)
        except ModelUnavailable as error:
            assert "\n" not in error.detail
        else:
            assert len(model.tensors) == len(shapes())
