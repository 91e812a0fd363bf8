"""The GGUF copy of an old file: what is in it, that it is made once, and that a piece of one is never taken for it."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from app.config.settings import Config
from app.errors import ModelUnavailable
from tests.stack import ROOT
from tests.waiting import scaled
from tests.workers.models.ggml.old_files import (
    F16,
    F32,
    GGJT_1,
    GGJT_2,
    GGJT_3,
    GGMF,
    GGML,
    Q2_K,
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    Kind,
    write_old_file,
)
from tests.workers.models.ggml.tiny_llama import token_texts
from workers.models.ggml import converted_copy as module
from workers.models.source import locate_model

OLDEST = list(itertools.product((GGML, GGMF), (F32, F16, Q4_0, Q4_1)))
LATER = list(itertools.product((GGJT_1, GGJT_2, GGJT_3), (F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)))
K_TYPES = [(GGJT_3, weights) for weights in (Q2_K, Q3_K, Q4_K, Q5_K, Q6_K)]
NAMES = {
    "tok_embeddings": "token_embd",
    "layers.1.attention.wk": "blk.1.attn_k",
    "layers.0.attention_norm": "blk.0.attn_norm",
    "layers.0.feed_forward.w1": "blk.0.ffn_gate",
    "layers.1.feed_forward.w2": "blk.1.ffn_down",
    "layers.0.feed_forward.w3": "blk.0.ffn_up",
    "output": "output",
}

PROGRAM = """
import sys
from pathlib import Path
from app.config.settings import Config
from workers.models.source import locate_model
config = Config(model_name="m", models_dir=Path(sys.argv[2]), setup_params={"path": sys.argv[1], "convert": True})
def report(doing, fraction):
    print(doing, fraction, flush=True)
    if sys.argv[3:] and (fraction or 0) > 0.3:
        print("holds", flush=True)
        sys.stdin.read()
print(locate_model(config, report, single_file=True), flush=True)
"""


def locate(path: Path, reports: list[str] | None = None) -> Path:
    config = Config(
        model_name="m", models_dir=path.parent / "models", setup_params={"path": str(path), "convert": True}
    )
    seen = [] if reports is None else reports
    return locate_model(config, lambda doing, _: seen.append(doing), single_file=True)


def start_process(path: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(path), str(path.parent / "models"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_until_it_holds(process: "subprocess.Popen[str]") -> None:
    assert process.stdout
    assert "holds\n" in iter(process.stdout.readline, "")


def files_of(models: Path) -> list[str]:
    return sorted(path.name for path in models.rglob("*") if path.is_file())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ggml-model.bin"


@pytest.mark.parametrize(("kind", "weights"), [*OLDEST, *LATER, *K_TYPES])
def test_the_copy_holds_the_same_weights(path: Path, kind: Kind, weights: int) -> None:
    model = write_old_file(path, kind, weights)
    tensors = {tensor.name: tensor for tensor in GGUFReader(locate(path)).tensors}
    for old, new in NAMES.items():
        tensor = tensors[f"{new}.weight"]
        is_matrix = "norm" not in old
        assert tensor.tensor_type == GGMLQuantizationType(weights if is_matrix else F32)
        floats = dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(floats.reshape(model.weights[f"{old}.weight"].shape), model.weights[f"{old}.weight"])
    assert len(tensors) == len(model.weights)


@pytest.mark.parametrize("weights", [F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K])
def test_the_data_of_version_3_is_copied_bit_for_bit(path: Path, weights: int) -> None:
    write_old_file(path, GGJT_3, weights)
    old, copy = path.read_bytes(), GGUFReader(locate(path))
    assert all(tensor.data.tobytes() in old for tensor in copy.tensors)


def test_scales_become_the_nearest_numbers_of_16_bits(path: Path) -> None:
    write_old_file(path, GGJT_2, Q8_0)
    data = bytearray(path.read_bytes())
    scale = np.float32(0.1234567)
    name = b"tok_embeddings.weight"
    start = data.index(name) + len(name)
    start += -start % 32
    data[start : start + 4] = scale.tobytes()
    path.write_bytes(data)
    [tensor] = [each for each in GGUFReader(locate(path)).tensors if each.name == "token_embd.weight"]
    assert tensor.data.tobytes()[:2] == np.float16(scale).tobytes()

    data[start : start + 4] = np.float32(1e30).tobytes()
    path.write_bytes(data)
    with pytest.raises(ModelUnavailable, match=r"tok_embeddings\.weight are no numbers"):
        locate(path)
    assert len(list((path.parent / "models").rglob("*.gguf"))) == 1, "that of the first"


@pytest.mark.parametrize(
    ("number", "text", "reason"),
    [
        (3 + 200, b"\xc9", "its vocabulary lacks bytes"),
        (290, b" the", "two of its tokens are the same"),
        (290, b"<s>", "two of its tokens are the same"),
    ],
)
def test_a_vocabulary_that_would_end_llama_cpp_is_refused(path: Path, number: int, text: bytes, reason: str) -> None:
    texts = token_texts()
    texts[number] = text
    write_old_file(path, texts=texts)
    with pytest.raises(ModelUnavailable, match=reason) as caught:
        locate(path)
    assert str(path) in caught.value.detail and files_of(path.parent / "models") == [".lock"]


def test_tokens_that_were_added_later_stay(path: Path) -> None:
    write_old_file(path, texts=[*token_texts(), b"[PAD]", b"", b""])
    fields = GGUFReader(locate(path)).fields
    tokens, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    assert tokens[-3:] == ["[PAD]", "<empty_296>", "<empty_297>"] and types[-3:] == [1, 3, 3]


def test_a_file_is_converted_once_until_it_changes(path: Path) -> None:
    write_old_file(path)
    first, reports = locate(path), list[str]()
    assert (first.name, first.parent.parent) == ("ggml-model.gguf", path.parent / "models")
    assert locate(path, reports) == first and reports == []
    os.utime(path, (1, 1))
    assert locate(path, reports) != first and "converting ggml-model.bin to GGUF" in reports


def test_a_gguf_file_stays_as_it_is(path: Path) -> None:
    path.write_bytes(b"GGUF" + bytes(100))
    assert locate(path) == path


def test_workers_that_start_together_convert_once(path: Path) -> None:
    write_old_file(path)
    first = start_process(path, "hold")
    wait_until_it_holds(first)
    second = start_process(path)
    assert second.stdout
    assert second.stdout.readline() == "waiting for another worker that converts ggml-model.bin None\n"
    copies = [process.communicate(timeout=scaled(60))[0].splitlines()[-1] for process in (first, second)]
    assert copies[0] == copies[1] and (first.returncode, second.returncode) == (0, 0)
    assert files_of(path.parent / "models") == [".complete.json", ".lock", "ggml-model.gguf"]


def test_a_conversion_that_is_cut_off_leaves_nothing_that_is_taken_for_whole(path: Path) -> None:
    write_old_file(path)
    killed = start_process(path, "hold")
    wait_until_it_holds(killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    models = path.parent / "models"
    assert ".complete.json" not in files_of(models)
    assert len(GGUFReader(locate(path)).tensors) == 21
    assert files_of(models) == [".complete.json", ".lock", "ggml-model.gguf"]


def test_too_little_room_is_noticed_before_and_during_the_conversion(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old_file(path)
    usage = shutil.disk_usage(path.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
        with pytest.raises(ModelUnavailable, match=r"no room for ggml-model\.bin .*are needed, 1\.0 MB are free"):
            locate(path)
    with monkeypatch.context() as patch:

        def full(model: object, options: object, name: str, target: Path, progress: object) -> None:
            target.write_bytes(b"GGUF")
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(module, "write_gguf", full)
        with pytest.raises(ModelUnavailable, match=r"no room .*what was converted is deleted"):
            locate(path)
    assert files_of(path.parent / "models") == [".lock"]
    locate(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_at_a_write_is_an_error_of_the_system(path: Path) -> None:
    from workers.models.ggml.options import ConversionOptions
    from workers.models.ggml.reader import read_model
    from workers.models.ggml.writer import write_gguf

    write_old_file(path)
    target = path.parent / "full.gguf"
    target.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_gguf(read_model(path), ConversionOptions(), "m", target, lambda _: None)
    assert caught.value.errno == errno.ENOSPC
