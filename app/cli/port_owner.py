"""Which process listens on a port of this machine, as /proc tells it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"
_COMMAND_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class PortOwner:
    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid}, {self.command}"


def port_owner(port: int) -> PortOwner | None:
    """Return the process that listens there; None: none does, or it is another user's, or of another container."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(Path(f"/proc/self/net/{table}"), port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return None
    for folder in sorted(Path("/proc").glob("[0-9]*/fd"), key=lambda folder: int(folder.parent.name)):
        if wanted & set(_links(folder)):
            return PortOwner(int(folder.parent.name), _command(folder.parent))
    return None


def _listening(table: Path, port: int) -> Iterator[str]:
    """Give the inodes of the sockets that listen on the port, of any address."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # no IPv6
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _links(folder: Path) -> Iterator[str]:
    try:
        entries = list(folder.iterdir())
    except OSError:  # another user's, or it has ended
        return
    for entry in entries:
        try:
            yield str(entry.readlink())
        except OSError:
            continue


def _command(process: Path) -> str:
    try:
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        command = command or (process / "comm").read_text().strip()
    except OSError:
        return "which has ended meanwhile"
    printable = "".join(character if character.isprintable() else " " for character in command)
    return printable if len(printable) <= _COMMAND_CHARACTERS else f"{printable[:_COMMAND_CHARACTERS]}…"
