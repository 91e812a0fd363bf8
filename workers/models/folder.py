"""The folder of one downloaded model. It looks complete only when it is.

<models_dir>/<family>_<digest>/
    .lock             held by the one process that downloads, while the others wait
    .partial/         bytes under way, one file per name and ETag; a later start goes on where they end
    <filename> ...    moved here when all of them are whole
    .complete.json    written last; what it names is trusted, nothing else is
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub.hf_api import RepoSibling

from app.errors import ModelUnavailable
from workers.models.progress import ReportProgress, readable_size

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """path: absolute. label: what messages call the model."""

    path: Path
    label: str

    @classmethod
    def of(cls, models_dir: Path, family: str, key: Sequence[str], label: str) -> "ModelFolder":
        """The folder of what `key` names; its name is stable from start to start."""
        return cls(models_dir.absolute() / f"{re.sub(r'[^A-Za-z0-9.-]', '_', family)}_{_digest(key)}", label)

    @property
    def is_complete(self) -> bool:
        """Everything was downloaded, and is still there in its full size."""
        try:
            sizes = json.loads(self._marker.read_text())["files"]
            return all((self.path / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    @contextmanager
    def alone(self, report: ReportProgress) -> Iterator[None]:
        """Wait until no other process works in this folder, then work in it. The kernel frees a killed process' lock.

        Raises:
            ModelUnavailable: the disk refuses to write, here or in the block.
        """
        with self._disk_errors_explained():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                acquired = lock.acquire(blocking=False)
            except Timeout:
                report(f"waiting for another worker that downloads {self.label}", None)
                acquired = lock.acquire()
            with acquired:
                yield

    def part(self, file: RepoSibling) -> Path:
        """Where the bytes of a large file gather. Another content has another SHA-256, so it has another part."""
        return self._partial / _digest([file.rfilename, file.lfs.sha256 if file.lfs else ""])

    def has(self, file: RepoSibling) -> bool:
        """The file is in its place, in its full size."""
        target = self.path / file.rfilename
        return target.exists() and file.size in (None, target.stat().st_size)

    def make_room(self, files: Sequence[RepoSibling]) -> int:
        """Prepare for the parts of these files, and delete files of a wrong size. Return how many bytes are missing.

        Raises:
            ModelUnavailable: the disk has no room for them.
        """
        self._partial.mkdir(exist_ok=True)
        missing_bytes = 0
        for file in files:
            if not self.has(file):
                (self.path / file.rfilename).unlink(missing_ok=True)
                held_bytes = self.part(file).stat().st_size if self.part(file).exists() else 0
                missing_bytes += (file.size or 0) - held_bytes
        if missing_bytes > shutil.disk_usage(self.path).free:
            raise ModelUnavailable(self._disk_full(f"{readable_size(missing_bytes)} are needed"))
        return missing_bytes

    def move_into_place(self, file: RepoSibling) -> None:
        """Move the whole part of a file to its name."""
        target = self.path / file.rfilename
        target.parent.mkdir(parents=True, exist_ok=True)
        self.part(file).replace(target)

    def publish(self, files: Sequence[RepoSibling], commit: str) -> None:
        """Record that these files are complete."""
        sizes = {file.rfilename: (self.path / file.rfilename).stat().st_size for file in files}
        draft = self._partial / "complete.json"
        draft.write_text(json.dumps({"model": self.label, "commit": commit, "files": sizes}, indent=1))
        draft.replace(self._marker)
        shutil.rmtree(self._partial, ignore_errors=True)

    @contextmanager
    def _disk_errors_explained(self) -> Iterator[None]:
        """Turn what the disk refuses into `ModelUnavailable`."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise ModelUnavailable(self._disk_full("what has arrived is kept")) from error
            reason = error.strerror or type(error).__name__
            raise ModelUnavailable(
                f"cannot write {self.label} to {self.path} ({reason}): correct models_dir or its permissions"
            ) from error

    def _disk_full(self, detail: str) -> str:
        existing = next(path for path in (self.path, *self.path.parents) if path.exists())
        free = readable_size(shutil.disk_usage(existing).free)
        return (
            f"no room for {self.label} in {self.path.parent} ({detail}, {free} are free): "
            "free some space or set models_dir to a larger disk"
        )

    @property
    def _marker(self) -> Path:
        return self.path / ".complete.json"

    @property
    def _partial(self) -> Path:
        return self.path / ".partial"


def _digest(key: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]
