"""Damaged copies of the packaged model, each made by a seed: what a stranger's file, or a broken download, may hold.

`python -m tests.workers.engines.llama.damaged_files 12` loads 12 of each kind and prints what came of them.
"""

import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack import ROOT, SMOLLM2_FILE

KINDS = (
    "header",
    "keys",
    "vocabulary",
    "tensors",
    "truncated",
    "extreme value",
    "repeated token",
    "invalid text",
    "weights",
    "zeros",
)
Edits = list[tuple[int, bytes]]  # (offset, what stands there now)

_FIXED_HEADER_BYTES = 24  # magic, version, number of tensors, number of keys
_TEXT, _ARRAY = 8, 9
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_EXTREMES = (0, 1, 3, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
_EXTREME_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e38)


@dataclass(frozen=True)
class Layout:
    """Where the parts of the file lie. scalars: offset and struct format; tokens: offset and text of each."""

    scalars: list[tuple[int, str]]
    tokens: list[tuple[int, bytes]]
    keys_end: int
    vocabulary: range
    tensors: range
    data_start: int
    size: int


def layout_of(data: bytes) -> Layout:
    """Walk through the header (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""
    scalars, tokens, vocabulary, at = [], list[tuple[int, bytes]](), range(0), _FIXED_HEADER_BYTES
    tensor_count, key_count = struct.unpack_from("<QQ", data, 8)
    for _ in range(key_count):
        key, at = _text(data, at)
        kind, at = struct.unpack_from("<I", data, at)[0], at + 4
        if kind == _ARRAY:
            first, end = at, _array_end(data, at)
            if key == b"tokenizer.ggml.tokens":
                tokens = _texts(data, at)
                vocabulary = range(first, end)
            vocabulary = range(vocabulary.start, end) if vocabulary else vocabulary
        elif kind == _TEXT:
            _, end = _text(data, at)
        else:
            scalars.append((at, _FORMATS[kind]))
            end = at + struct.calcsize(_FORMATS[kind])
        at = end
    tensors_start = at
    for _ in range(tensor_count):
        _, at = _text(data, at)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 4 + 8
    return Layout(
        scalars=scalars,
        tokens=tokens,
        keys_end=vocabulary.start,
        vocabulary=vocabulary,
        tensors=range(tensors_start, at),
        data_start=at,
        size=len(data),
    )


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    """Return a text and where it ends."""
    length: int = struct.unpack_from("<Q", data, at)[0]
    return data[at + 8 : at + 8 + length], at + 8 + length


def _texts(data: bytes, at: int) -> list[tuple[int, bytes]]:
    """Return the texts of an array, each with the place of its first byte."""
    (count,), at, texts = struct.unpack_from("<Q", data, at + 4), at + 12, []
    for _ in range(count):
        text, end = _text(data, at)
        texts.append((at + 8, text))
        at = end
    return texts


def _array_end(data: bytes, at: int) -> int:
    kind, count = struct.unpack_from("<IQ", data, at)
    if kind != _TEXT:
        return at + 12 + count * struct.calcsize(_FORMATS[kind])
    place, text = _texts(data, at)[-1]
    return place + len(text)


class Damage:
    """Chooses what is damaged."""

    def __init__(self, layout: Layout, original: bytes) -> None:
        self._layout = layout
        self._original = original
        makers: list[Callable[[random.Random], Edits | int]] = [
            lambda rng: self._flips(rng, range(4, _FIXED_HEADER_BYTES)),
            lambda rng: self._flips(rng, range(_FIXED_HEADER_BYTES, layout.keys_end)),
            lambda rng: self._flips(rng, layout.vocabulary),
            lambda rng: self._flips(rng, layout.tensors),
            lambda rng: rng.choice([rng.randrange(layout.data_start), rng.randrange(layout.size)]),
            self._extreme,
            self._repeated_token,
            self._invalid_text,
            self._weights,
            self._zeros,
        ]
        self._makers = dict(zip(KINDS, makers, strict=True))

    def edits(self, kind: str, seed: int) -> Edits | int:
        """Return what is damaged: edits, or the size to which the file is cut."""
        return self._makers[kind](random.Random(f"{kind} {seed}"))

    def _flips(self, rng: random.Random, where: range) -> Edits:
        places = [rng.choice(where) for _ in range(rng.choice([1, 1, 2, 8]))]
        return [(at, bytes([self._original[at] ^ 1 << rng.randrange(8)])) for at in places]

    def _extreme(self, rng: random.Random) -> Edits:
        at, form = rng.choice(self._layout.scalars)
        values = {"<I": _EXTREMES, "<f": _EXTREME_FLOATS, "<B": (0, 1, 255)}[form]
        return [(at, struct.pack(form, rng.choice(values)))]

    def _repeated_token(self, rng: random.Random) -> Edits:
        at, text = rng.choice(self._layout.tokens[300:])
        other = next(each for _, each in self._layout.tokens if len(each) == len(text) and each != text)
        return [(at, other)]

    def _invalid_text(self, rng: random.Random) -> Edits:
        chosen = rng.sample([token for token in self._layout.tokens if len(token[1]) > 3], 50)
        return [(at, rng.randbytes(len(text))) for at, text in chosen]

    def _weights(self, rng: random.Random) -> Edits:
        start = rng.randrange(self._layout.data_start, self._layout.size - 100_000)
        return [(start, rng.choice([rng.randbytes(100_000), b"\xff" * 100_000]))]

    def _zeros(self, rng: random.Random) -> Edits:
        length = rng.choice([8, 64, 4096])
        return [(rng.randrange(_FIXED_HEADER_BYTES, self._layout.tensors.stop - length), bytes(length))]


class DamagedFile:
    """A copy of the model that takes on one damage after the other."""

    def __init__(self, path: Path) -> None:
        shutil.copyfile(SMOLLM2_FILE, path)
        self.path = path
        self._original = path.read_bytes()
        self._damage = Damage(layout_of(self._original), self._original)

    @contextmanager
    def damaged(self, kind: str, seed: int) -> Iterator[Path]:
        edits = self._damage.edits(kind, seed)
        try:
            if isinstance(edits, int):
                self.path.write_bytes(self._original[:edits])
            else:
                self._write(edits)
            yield self.path
        finally:
            if isinstance(edits, int):
                self.path.write_bytes(self._original)
            else:
                self._write([(at, self._original[at : at + len(now)]) for at, now in edits])

    def _write(self, edits: Edits) -> None:
        with self.path.open("r+b") as file:
            for at, now in edits:
                file.seek(at)
                file.write(now)


class FileServer:
    """`serve_files` in a process of its own; a new one where a file has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "FileServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def serve(self, path: Path) -> tuple[str, str]:
        """Return "refused" and the line, "served" and the text, or "died" and how."""
        process = self._process = self._process or subprocess.Popen(
            [sys.executable, "-m", "tests.workers.engines.llama.serve_files"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin and process.stdout
        print(path, file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            self._process = None
            return "died", f"exit status {process.wait()}"
        verdict, detail = json.loads(line)
        return verdict, detail


def main(count: int) -> int:
    """Print the verdicts on `count` files of each kind; returns how many ended the process that loaded them."""
    verdicts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder, FileServer() as server:
        copy = DamagedFile(Path(folder) / "model.gguf")
        for seed in range(count):
            for kind in KINDS:
                with copy.damaged(kind, seed) as path:
                    verdict, detail = server.serve(path)
                verdicts[kind, verdict] += 1
                print(f"{kind} {seed}: {verdict}: {detail[-200:]!r}", flush=True)
    for kind in KINDS:
        print(f"{kind:16}", *(f"{verdict} {verdicts[kind, verdict]:3}" for verdict in ("refused", "served", "died")))
    return sum(number for (_, verdict), number in verdicts.items() if verdict == "died")


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)))
