"""The disks and limits of this machine."""

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.config.finding import Finding, fault, ok, warning
from app.config.open_files import OPEN_FILES
from app.config.settings import Config
from app.config.variables import variable_name

LOW_BYTES = 2**30
_NOTHING_BYTES = 100 * 2**20


def check_disk(config: Config) -> Iterator[Finding]:
    """Both folders are made at the start, so it is the nearest one that exists that counts."""
    rooms: dict[int, str] = {}
    for key in ("models_dir", "data_dir"):
        folder = Path(getattr(config, key)).absolute()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            what = "is no folder" if not existing.is_dir() else "cannot be written by this user"
            cure = f"give it to the user of the service (chown), or set {variable_name(key)} to another folder"
            yield fault("disk", f"{key}: {existing} {what}", cure)
            continue
        rooms.setdefault(existing.stat().st_dev, key)
        if rooms[existing.stat().st_dev] == key:
            yield _room(key, existing)


def _room(key: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{key}: {free / 1e9:.1f} GB are free in {folder}"
    cure = f"delete what is not needed, or set {variable_name(key)} to a folder on another disk"
    if free < _NOTHING_BYTES:
        return fault("disk", text, cure)
    return warning("disk", text, cure) if free < LOW_BYTES else ok("disk", text)


def check_limits(config: Config) -> Iterator[Finding]:
    """A client is an open file; `run` raises the limit as far as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        cure = "raise the hard limit: `ulimit -Hn` of the shell, LimitNOFILE of systemd, --ulimit nofile of Docker"
        yield warning("limits", f"a process may have {hard} open files, fewer than {OPEN_FILES} clients need", cure)
    else:
        yield ok("limits", "a process may have as many open files as clients need")
