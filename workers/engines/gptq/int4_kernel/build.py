"""Compiles int4_matmul.c into the environment: `python -m workers.engines.gptq.int4_kernel.build [folder]`.

It also runs as a file by itself, where nothing is installed; so it imports nothing of this project. Without the
library torch's own kernel multiplies: a build that fails prints one line and exits with 0.
"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("int4_matmul.c")
# linked in a step of its own, without libgomp: torch has loaded one, whose threads the kernel shares
_COMPILE = ("-O3", "-fPIC", "-fopenmp", "-c", "-o")
_LINK = ("-shared", "-o")
_MACHINES = ("x86_64", "AMD64")
_REASON_CHARACTERS = 300


def library_file(folder: Path | None = None) -> Path:
    """Return where `build` puts the library of this source. None: in this environment."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    return (folder or Path(sysconfig.get_path("platlib")) / "llm_api_kernels") / f"int4_matmul-{digest}.so"


def build(folder: Path | None = None) -> str | None:
    """Make `library_file(folder)`, and remove those of older sources. Returns the reason of a failure."""
    target = library_file(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if platform.machine() not in _MACHINES:
        return f"there is none for {platform.machine()}"
    compiler: list[str | Path] = [*shlex.split(os.environ.get("CC") or "cc")]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        compiled, linked = Path(scratch) / "int4_matmul.o", Path(scratch) / target.name
        for command in ([*compiler, *_COMPILE, compiled, SOURCE], [*compiler, *_LINK, linked, compiled]):
            try:
                completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - from the environment
            except OSError as error:
                return f"{compiler[0]} does not run ({error.strerror})"
            if completed.returncode != 0:
                reason = " ".join(completed.stderr.split())[:_REASON_CHARACTERS]
                return f"{compiler[0]} fails: {reason or completed.returncode}"
        for older in target.parent.glob("int4_matmul-*.so"):
            older.unlink()
        linked.replace(target)
    return None


if __name__ == "__main__":
    failure = build(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    if failure is not None:
        sys.stderr.write(f"no 4-bit kernel of our own, torch's takes its place and is slower: {failure}\n")
