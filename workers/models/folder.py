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
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import ModelUnavailable
from workers.models.hub_client import RemoteFile
from workers.models.progress import ReportProgress, readable_size

_SHA256 = re.compile(r"[0-9a-f]{64}")
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
        """Wait until no other process downloads into this folder. The kernel frees the lock of a killed process."""
        with self.disk_errors_explained():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                report(f"waiting for another worker that downloads {self.label}", None)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def part(self, file: RemoteFile) -> Path:
        """Where the bytes of a file gather. Another content is another ETag, so it never lands in the same part."""
        return self._partial / _digest([file.filename, file.etag])

    def held_bytes(self, file: RemoteFile) -> int:
        """How many bytes of a file are here to go on from; 0 where the rest could not be told from them."""
        part = self.part(file)
        size = part.stat().st_size if part.exists() else 0
        return size if file.size is not None and size <= file.size else 0

    def is_whole(self, file: RemoteFile) -> bool:
        """All bytes of a file are here; whether they are the right ones, `verify` says."""
        return self.part(file).exists() and self.held_bytes(file) == file.size

    def check_space(self, files: Sequence[RemoteFile]) -> None:
        """Raises `ModelUnavailable` where the disk has no room for what is still missing."""
        self._partial.mkdir(exist_ok=True)
        missing = sum((file.size or 0) - self.held_bytes(file) for file in files)
        if missing > shutil.disk_usage(self.path).free:
            raise ModelUnavailable(self._disk_full(f"{readable_size(missing)} are needed"))

    def verify(self, file: RemoteFile, report: ReportProgress) -> None:
        """Compare size and SHA-256 with what the hub says, as far as it says so. A damaged part is thrown away."""
        part = self.part(file)
        whole = file.size is None or part.stat().st_size == file.size
        if whole and _SHA256.fullmatch(file.etag):
            report(f"checking {file.filename}", None)
            with part.open("rb") as content:
                whole = hashlib.file_digest(content, "sha256").hexdigest() == file.etag
        if not whole:
            part.unlink()
            raise ModelUnavailable(f"{file.filename} arrived damaged and was thrown away: start again to fetch it anew")

    def publish(self, files: Sequence[RemoteFile]) -> None:
        """Put the verified files in their places, then say that they are complete."""
        sizes = {}
        for file in files:
            target = self.path / file.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            sizes[file.filename] = self.part(file).stat().st_size
            self.part(file).replace(target)
        draft = self._partial / "complete.json"
        with draft.open("w") as marker:
            json.dump({"model": self.label, "commit": files[0].commit, "files": sizes}, marker, indent=1)
            marker.flush()
            os.fsync(marker.fileno())
        draft.replace(self._marker)
        shutil.rmtree(self._partial, ignore_errors=True)

    @contextmanager
    def disk_errors_explained(self) -> Iterator[None]:
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
