"""Fetches a model from the Hub: once, by one process, going on where an earlier attempt was interrupted."""

import fnmatch
import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from app.errors import ConfigError, ModelUnavailable
from workers.models.folder import ModelFolder
from workers.models.hub_client import ConnectionLost, HubClient, RemoteFile
from workers.models.progress import DownloadProgress, ReportProgress
from workers.suggestions import closest

MAX_FRUITLESS_ATTEMPTS = 5
"""How often in a row a connection may break without having brought a byte."""
RETRY_PAUSE_SECONDS = 1.0

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
# Of a whole repository: other runtimes' copies of the same weights, and pickles where safetensors hold them too.
_OTHER_RUNTIMES = ("*.gguf", "*.onnx*", "*.h5", "*.msgpack", "*.tflite", "*.ot", "onnx/*", "openvino/*", "original/*")
_PICKLES = ("*pytorch_model*.bin", "*.pt", "*.pth")
_TOKENIZERS = (
    "*token*.json",  # tokenizer, tokenizer_config, special_tokens_map, added_tokens
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "config.json",  # says which class of tokenizer it is
    "*.py",
)
_CONFIGURATION = (*_TOKENIZERS, "generation_config.json", "quantize_config.json")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """filename None: the whole repository, which `single_file` refuses; or of it the tokenizer alone.
    with_configuration: beside `filename`, the repository's configuration and tokenizer.
    """

    repo_id: str
    filename: str | None
    revision: str
    token: str | None = field(repr=False)
    single_file: bool = False
    tokenizer_only: bool = False
    with_configuration: bool = False


def fetch_from_hub(source: HubSource, models_dir: Path, family: str, report: ReportProgress) -> Path:
    """The file (or, without a filename, the folder) on this disk; the hub is asked only where it is not there yet.

    Raises:
        ModelUnavailable, ConfigError: one line that says what to do.
    """
    key = [source.repo_id, source.filename or "", source.revision]
    key += ["tokenizer"] if source.tokenizer_only else []
    key += ["configuration"] if source.with_configuration and source.filename else []
    folder = ModelFolder.of(models_dir, family, key, label=source.filename or source.repo_id)
    if not folder.is_complete:
        with folder.alone(report):
            if not folder.is_complete:  # else another process fetched it while we waited
                _download(source, folder, report)
    return folder.path / source.filename if source.filename else folder.path


def _download(source: HubSource, folder: ModelFolder, report: ReportProgress) -> None:
    report(f"asking the hub for {folder.label}", None)
    hub = HubClient(repo_id=source.repo_id, revision=source.revision, token=source.token)
    files = _wanted_files(hub, source)
    sizes = [file.size for file in files if file.size is not None]
    progress = DownloadProgress(folder.label, sum(sizes) if len(sizes) == len(files) else None, report)
    with folder.disk_errors_explained():
        folder.check_space(files)
        for file in files:
            _fetch(hub, file, folder, progress)
            folder.verify(file, report)
        folder.publish(files)
    logger.info("downloaded %s to %s", folder.label, folder.path)


def _wanted_files(hub: HubClient, source: HubSource) -> list[RemoteFile]:
    if source.filename is None:
        commit, names = hub.listing()
        return [hub.file(name, commit) for name in _model_files(source, names)]
    if source.with_configuration:
        commit, names = hub.listing()
        beside = [name for name in _plain(names) if _matches(name, _CONFIGURATION) and name != source.filename]
        return [hub.file(name, commit) for name in (source.filename, *beside)]
    first = hub.file(source.filename)
    return [first, *(hub.file(name, first.commit) for name in _other_shards(source.filename))]


def _other_shards(filename: str) -> list[str]:
    """llama.cpp loads a split model by the name of one piece, and wants the others beside it."""
    shard = _SHARD.fullmatch(filename)
    if not shard:
        return []
    count = int(shard["count"])
    names = [f"{shard['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    return [name for name in names if name != filename]


def _model_files(source: HubSource, names: Sequence[str]) -> list[str]:
    plain = _plain(names)
    if source.tokenizer_only:
        found = [name for name in plain if _matches(name, _TOKENIZERS)]
        if not found:
            raise ModelUnavailable(f"{source.repo_id} holds no tokenizer: check setup_params.tokenizer_repo_id")
        return found
    kept = [name for name in plain if not _matches(name, _OTHER_RUNTIMES)]
    if any(name.endswith(".safetensors") for name in kept):
        kept = [name for name in kept if not _matches(name, _PICKLES)]
    has_weights = any(_matches(name, _WEIGHTS) for name in kept)
    gguf = [name for name in plain if name.endswith(".gguf")]
    if source.single_file or (gguf and not has_weights):
        hint = f"has {closest('', gguf)}" if gguf else "has no .gguf file"
        raise ConfigError(f"setup_params.filename is missing: {source.repo_id} {hint}")
    if not has_weights:
        raise ModelUnavailable(f"{source.repo_id} holds no weights that can be loaded: check setup_params.repo_id")
    return kept


def _plain(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith((".", "/")) and ".." not in PurePosixPath(name).parts]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _fetch(hub: HubClient, file: RemoteFile, folder: ModelFolder, progress: DownloadProgress) -> None:
    """Bring the part of a file to its full size, over as many connections as that takes."""
    fruitless = 0
    while not folder.is_whole(file):
        held_bytes = folder.held_bytes(file)
        try:
            _append(hub, file, folder.part(file), held_bytes, progress)
            break
        except ConnectionLost as error:
            fruitless = 0 if folder.held_bytes(file) > held_bytes else fruitless + 1
            if fruitless >= MAX_FRUITLESS_ATTEMPTS:
                raise ModelUnavailable(hub.unreachable(f"{error}; what has arrived is kept")) from error
            logger.warning("the download of %s was interrupted (%s), going on", file.filename, error)
            time.sleep(RETRY_PAUSE_SECONDS)
    progress.end_file(folder.part(file).stat().st_size)


def _append(hub: HubClient, file: RemoteFile, part: Path, held_bytes: int, progress: DownloadProgress) -> None:
    with hub.opened(file, held_bytes) as (offset, chunks), part.open("r+b" if part.exists() else "wb") as target:
        if part.stat().st_size > offset:
            target.truncate(offset)
        target.seek(offset)
        for chunk in chunks:
            target.write(chunk)
            progress.at(target.tell())
        target.flush()
        os.fsync(target.fileno())
        if file.size is not None and target.tell() < file.size:
            raise ConnectionLost("the answer was too short")
