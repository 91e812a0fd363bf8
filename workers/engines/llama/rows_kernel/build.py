"""Compiles rows.c into the environment: `python -m workers.engines.llama.rows_kernel.build [folder]`.

It also runs as a file by itself, beside an installed llama-cpp-python; so it imports nothing of this project. Without
the library ggml's own kernel multiplies: a build that fails prints one line and exits with 0.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("rows.c")
HEADERS = ("avx512.h", "blocks_of_32.h", "blocks_of_256.h", "kernels.h")  # beside it
_PACKAGE = "llama-cpp-python"
_COMPILE = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fopenmp", "-fvisibility=hidden")
_DEFINITIONS = ("-DGGML_BACKEND_DL", "-DGGML_BACKEND_SHARED", "-DGGML_BACKEND_BUILD")
_MACHINES = ("x86_64", "AMD64")
_GGML_HEADERS = ("/ggml/include/", "/ggml/src/ggml-backend-impl.h")  # in the source of llama-cpp-python
_REASON_CHARACTERS = 300


def library_file(folder: Path | None = None) -> Path:
    """Return where `build` puts the library of this source for the installed llama.cpp. None: in this environment."""
    files = (SOURCE, *map(SOURCE.with_name, HEADERS))
    content = b"".join(file.read_bytes() for file in files) + importlib.metadata.version(_PACKAGE).encode()
    name = f"rows-{hashlib.sha256(content).hexdigest()[:12]}.so"
    return (folder or Path(sysconfig.get_path("platlib")) / "llm_api_kernels") / name


def build(folder: Path | None = None) -> str | None:
    """Make `library_file(folder)`, and remove those of older sources. Returns the reason of a failure."""
    target = library_file(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if platform.machine() not in _MACHINES:
        return f"there is none for {platform.machine()}"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            headers, linked = _ggml_headers(Path(scratch)), Path(scratch) / target.name
            includes = [f"-I{headers / part}" for part in ("include", "src")]
            # the module finds ggml by the name under which llama_cpp has loaded it
            libraries = [f"-L{_libraries()}", "-l:libggml-base.so.0"]
            _run([*compiler, *_COMPILE, *_DEFINITIONS, *includes, str(SOURCE), "-o", str(linked), *libraries])
            for older in target.parent.glob("rows-*.so"):
                older.unlink()
            linked.replace(target)
    except (OSError, LookupError, tarfile.TarError, RuntimeError) as error:
        return str(error)
    return None


def _ggml_headers(folder: Path) -> Path:
    """Write `include/` and `src/` into `folder`, from the source of the installed version; return `folder`.

    What a module must define changes between versions, and packages contain the public headers only.
    """
    wanted = f"{_PACKAGE}=={importlib.metadata.version(_PACKAGE)}"
    download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    _run([*download, "--no-binary", _PACKAGE, "-d", str(folder), wanted])
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        headers = 0
        for member in archive:
            part = next((part for part in _GGML_HEADERS if part in member.name), None)
            content = archive.extractfile(member) if part else None  # None for a folder
            if part and content:
                # by its own name alone: extractall() without a filter, which Python 3.11.2 lacks, trusts the archive
                target = folder / part.strip("/").split("/")[1] / Path(member.name).name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content.read())
                headers += 1
    if not headers:
        raise LookupError(f"the source of {wanted} holds no ggml")
    return folder


def _libraries() -> Path:
    """Without importing the package."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise LookupError("llama_cpp is not installed")
    return Path(spec.origin).parent / "lib"


def _run(command: list[str]) -> None:
    """Raises RuntimeError with the first of its error output."""
    completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - from the environment
    if completed.returncode != 0:
        output = " ".join(completed.stderr.split())[:_REASON_CHARACTERS]
        raise RuntimeError(f"{command[0]} fails: {output or completed.returncode}")


if __name__ == "__main__":
    failure = build(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    if failure is not None:
        sys.stderr.write(f"no kernels of several rows, ggml's take their place and are slower: {failure}\n")
