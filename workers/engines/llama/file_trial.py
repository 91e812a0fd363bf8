"""Loads a GGUF file in a process of its own, before the worker loads it.

llama.cpp trusts its files: a damaged or hostile one may end it by a `GGML_ASSERT`, a C++ exception or a division by
zero, and with it the worker, at every start. The trial reads header, vocabulary and the shapes of all tensors, and
plans a computation over them. It leaves out the weights, so it takes no longer for a large model than for a small one.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.errors import ModelUnavailable, StartupError
from workers.engines.llama.context import Context
from workers.engines.llama.embeddings import LlamaEmbedder
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.cache_size import cells_per_slot

TRIAL_SECONDS = 300  # it takes one, and longer where the disk is slow or the CPUs are busy
_FIX = "download it again, or use another file"
_REASON_CHARACTERS = 300
_passed: set[tuple[str, int, int, int]] = set()


def try_file(path: Path, model_params: Mapping[str, Any]) -> None:
    """Load the file in a child process, once for each file that this process loads.

    Only the end of the child by a signal counts: every error that llama.cpp or this package reports comes again, and
    with its own message, when the worker loads the file. SIGKILL does not count either, for it is not of the file: the
    system was out of memory, or an operator did it.

    Raises:
        ModelUnavailable: the file ends llama.cpp, or does not let it come to an end.
    """
    try:
        status = path.stat()
    except OSError:
        return  # the worker's own attempt says why
    signature = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
    if signature not in _passed:
        _run(path, model_params)
        _passed.add(signature)


def fault_of(path: Path, model_params: Mapping[str, Any]) -> str | None:
    """Return why llama.cpp does not accept the file, as far as that shows without its weights; None: it does."""
    try:
        return _last_line(_run(path, model_params)) or None
    except ModelUnavailable as error:
        return error.detail


def _run(path: Path, model_params: Mapping[str, Any]) -> bytes:
    """Return what a trial that came to its end wrote: a reason, or nothing. Raises ModelUnavailable."""
    command = [sys.executable, "-m", "workers.engines.llama.file_trial", str(path)]
    try:
        trial = subprocess.run(  # noqa: S603 - the command is ours
            command,
            input=json.dumps(model_params, default=str).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelUnavailable(
            f"{path} keeps llama.cpp busy for over {TRIAL_SECONDS} s before its weights: {_FIX}"
        ) from None
    if trial.returncode < 0 and trial.returncode != -signal.SIGKILL:
        reason = _last_line(trial.stderr) or signal.Signals(-trial.returncode).name
        raise ModelUnavailable(f"{path} ends llama.cpp, so it cannot be loaded ({reason}): {_FIX}")
    return trial.stderr


def _environment() -> dict[str, str]:
    """No GPU: preparing one takes seconds, and a part of its memory."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][-_REASON_CHARACTERS:] if lines else ""


def main() -> None:
    """Load the file that the argument names, with the `model_params` of the standard input."""
    params = LlamaModelParams.read(json.load(sys.stdin))
    model = Model(Path(sys.argv[1]), params, lambda *_: None, weights=False)
    cells = cells_per_slot(model.trained_tokens, params.n_ctx)
    _exercise(model.vocabulary)
    if model.is_causal:
        Context(model, params, slots=1, cells_per_slot=cells, max_rows=params.n_batch)
    else:
        LlamaEmbedder(model, params, cells)


def _exercise(vocabulary: LlamaVocabulary) -> None:
    """Read every token, and a text with characters of all kinds: some vocabularies end llama.cpp only then."""
    vocabulary.detokenize(range(vocabulary.size))
    vocabulary.tokenize("".join(map(chr, (*range(1, 0x600), *range(0x2000, 0x2100), 0x4E2D, 0xFFFD, 0x1F600))))


if __name__ == "__main__":
    try:
        main()
    except StartupError as error:
        sys.stderr.write(f"{error.detail}\n")
    sys.stderr.flush()
    os._exit(0)  # what the operating system frees, llama.cpp need not
