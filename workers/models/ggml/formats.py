"""The formats before GGUF, by the first bytes of a file.

All numbers are little-endian. The magic is the format's name as a number, so its letters stand in the file backwards.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.errors import ModelUnavailable

FETCH_ANOTHER = "fetch a GGUF file of the same model instead"
MAGIC_BYTES = 4
_ADAPTER = b"algg"


@dataclass(frozen=True, slots=True)
class OldFormat:
    """version: None: the format has none in its header.

    has_scores: each token has a score. is_aligned: the data of a tensor begins at a multiple of 32 bytes.
    layout: how quantized weights are stored, see `blocks`.
    """

    name: str
    version: int | None
    period: str
    has_scores: bool
    is_aligned: bool
    layout: int

    @property
    def label(self) -> str:
        version = "" if self.version is None else f" version {self.version}"
        return f"{self.name}{version} file ({self.period})"


_FORMATS = {
    (b"lmgg", None): OldFormat("GGML", None, "March 2023", has_scores=False, is_aligned=False, layout=1),
    (b"fmgg", 1): OldFormat("GGMF", 1, "March 2023", has_scores=True, is_aligned=False, layout=1),
    (b"tjgg", 1): OldFormat("GGJT", 1, "April 2023", has_scores=True, is_aligned=True, layout=1),
    (b"tjgg", 2): OldFormat("GGJT", 2, "May 2023", has_scores=True, is_aligned=True, layout=2),
    (b"tjgg", 3): OldFormat("GGJT", 3, "May to August 2023", has_scores=True, is_aligned=True, layout=3),
}
_NAMES = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT"}


@dataclass(frozen=True, slots=True)
class UnknownVersion:
    """A file whose magic is known and whose version is not."""

    name: str
    version: int


def format_of(file: BinaryIO) -> OldFormat | UnknownVersion | None:
    """Read the magic and the version of an open file, up to where the numbers of the model begin.

    Returns None where it is none of these formats.
    """
    magic = file.read(MAGIC_BYTES)
    if magic not in _NAMES:
        return None
    if (magic, None) in _FORMATS:
        return _FORMATS[magic, None]
    version = int.from_bytes(file.read(struct.calcsize("<I")), "little")
    return _FORMATS.get((magic, version)) or UnknownVersion(_NAMES[magic], version)


def old_format(path: Path) -> OldFormat | UnknownVersion | None:
    """Return the format of a file; None also where it cannot be read: what loads it reports that."""
    try:
        with path.open("rb") as file:
            return format_of(file)
    except OSError:
        return None


def reject_unconverted(path: Path, *, is_converted: bool) -> None:
    """Raise `ModelUnavailable` if the file is of an old format that is not to be converted, or cannot be."""
    found = old_format(path)
    if isinstance(found, UnknownVersion):
        raise ModelUnavailable(f"{path} is a {found.name} file of the unknown version {found.version}: {FETCH_ANOTHER}")
    if found is not None and not is_converted:
        raise ModelUnavailable(
            f"{path} is a {found.label}, which llama.cpp no longer reads: set setup_params.convert to true to have it "
            f"converted once, or {FETCH_ANOTHER}"
        )


def is_old_adapter(magic: bytes) -> bool:
    """Return whether a file with this magic is a LoRA adapter of the time before GGUF."""
    return magic == _ADAPTER
