"""The folder of one model that was downloaded or converted. It looks complete only when it is.

<models_dir>/<family>_<digest>/
    .lock             held by the one process that downloads or converts, while the others wait
    .partial/         files under way; a later start resumes the large ones, named after their name and SHA-256
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
        """Everything was stored, and is still there in its full size."""
        try:
            sizes = json.loads(self._marker.read_text())["files"]
            return all((self.path / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    @contextmanager
    def alone(
        self, report: ReportProgress, *, work: str = "downloads", when_full: str = "what has arrived is kept"
    ) -> Iterator[None]:
        """Wait until no other process works in this folder, then work in it. The kernel frees a killed process' lock.

        Args:
            work: what a process does here, for messages.
            when_full: what becomes of the files under way when the disk is full.

        Raises:
            ModelUnavailable: the disk cannot be written, here or in the block.
        """
        with self._disk_errors_explained(when_full):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                acquired = lock.acquire(blocking=False)
            except Timeout:
                report(f"waiting for another worker that {work} {self.label}", None)
                acquired = lock.acquire()
            with acquired:
                yield

    @property
    def small(self) -> Path:
        """Where the files gather that are not worth resuming."""
        return self._partial / "small"

    def part(self, file: RepoSibling) -> Path:
        """Where a file gathers. Another content of a large file has another SHA-256, so it has another part."""
        if file.lfs is None:
            return self.small / file.rfilename
        return self._partial / _digest([file.rfilename, file.lfs.sha256])

    def reserve_space(self, files: Sequence[RepoSibling]) -> int:
        """Prepare for the parts of these files. Returns how many bytes are missing.

        Raises:
            ModelUnavailable: the disk has too little free space.
        """
        shutil.rmtree(self.small, ignore_errors=True)  # an interrupted download may have been of an earlier commit
        self._partial.mkdir(exist_ok=True)
        parts = [self.part(file) for file in files]
        held_bytes = sum(part.stat().st_size for part in parts if part.exists())
        missing_bytes = sum(file.size or 0 for file in files) - held_bytes
        if missing_bytes > shutil.disk_usage(self.path).free:
            raise ModelUnavailable(self._disk_full(f"{readable_size(missing_bytes)} are needed"))
        return missing_bytes

    def verify(self, file: RepoSibling) -> None:
        """Compare a whole part with its SHA-256. Raises `ModelUnavailable`, and deletes the part, if it is damaged."""
        with self.part(file).open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if file.lfs and digest != file.lfs.sha256:
            self.part(file).unlink()
            raise ModelUnavailable(f"{file.rfilename} arrived damaged and was deleted: start again to fetch it anew")

    def complete(self, files: Sequence[RepoSibling], **origin: str) -> None:
        """Move the files to their final paths, then record that they are complete, and their origin for a reader."""
        sizes = {}
        for file in files:
            target = self.path / file.rfilename
            target.parent.mkdir(parents=True, exist_ok=True)
            self.part(file).replace(target)
            sizes[file.rfilename] = target.stat().st_size
        draft = self._partial / "complete.json"
        draft.write_text(json.dumps({"model": self.label, **origin, "files": sizes}, indent=1))
        draft.replace(self._marker)
        shutil.rmtree(self._partial, ignore_errors=True)

    @contextmanager
    def _disk_errors_explained(self, when_full: str) -> Iterator[None]:
        """Turn disk errors into `ModelUnavailable`."""
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise ModelUnavailable(self._disk_full(when_full)) from error
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
