"""Fetches a model from the Hub into its folder, once.

huggingface_hub does it, except for the bytes of large files: since version 1.18 `hf_hub_download` does not resume. It
writes to a file with a random name and deletes it after an error (decision 0028). So `_fetch_large` fetches those, over
plain HTTP with `Range`, which the Hub supports for every file, and the folder checks their SHA-256.
"""

import logging
import os
import time
from json import JSONDecodeError
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import FileMetadataError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import (  # type: ignore[attr-defined] # documented
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
    silent_tqdm,
)

from workers.models.folder import ModelFolder
from workers.models.hub_errors import ConnectionLost, hub_errors_explained
from workers.models.hub_source import HubSource
from workers.models.progress import DownloadProgress, ReportProgress

MAX_FRUITLESS_ATTEMPTS = 5
"""How often in a row a connection may break without having brought a byte."""
RETRY_PAUSE_SECONDS = 1.0

logger = logging.getLogger(__name__)

# They log every address they ask for, and those of the Hub's file store carry a signature that opens the file.
for _chatty in ("httpx2", "httpcore2"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


def fetch_from_hub(source: HubSource, models_dir: Path, family: str, report: ReportProgress) -> Path:
    """Return the file (or, without a filename, the folder) on this disk. Ask the Hub only if it is not complete.

    Raises:
        ModelUnavailable, ConfigError: one line that says what to do.
    """
    folder = ModelFolder.of(models_dir, family, source.key, label=source.filename or source.repo_id)
    if not folder.is_complete:
        with folder.alone(report), hub_errors_explained(source):
            if not folder.is_complete:  # else another process fetched it while this one waited
                _download(source, folder, report)
    return folder.path / (source.filename or "")


def _download(source: HubSource, folder: ModelFolder, report: ReportProgress) -> None:
    report(f"asking the hub for {folder.label}", None)
    api = HfApi(endpoint=source.endpoint, token=source.token)
    commit, files = _wanted_files(source, api)
    total_bytes = sum(file.size or 0 for file in files)
    progress = DownloadProgress(folder.label, total_bytes, total_bytes - folder.reserve_space(files), report)
    headers = build_hf_headers(token=source.token)
    headers["Accept-Encoding"] = "identity"  # a compressed response has no ranges
    for file in files:
        name = file.rfilename
        if file.lfs:
            url = hf_hub_url(source.repo_id, name, revision=commit, endpoint=source.endpoint)
            _fetch_large(url, headers, folder.part(file), file.lfs.size, progress)
            report(f"checking {name}", None)
            folder.verify(file)
        else:
            api.hf_hub_download(source.repo_id, name, revision=commit, local_dir=folder.small, tqdm_class=silent_tqdm)
            progress.add(file.size or 0)
    folder.complete(files, commit=commit)
    logger.info("downloaded %s to %s", folder.label, folder.path)


def _wanted_files(source: HubSource, api: HfApi) -> tuple[str, list[RepoSibling]]:
    """The commit where the revision stands now, and the wanted files with their sizes and SHA-256."""
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        info = api.model_info(source.repo_id, revision=source.revision, files_metadata=True, timeout=timeout)
    except (JSONDecodeError, TypeError, LookupError) as error:
        raise FileMetadataError("not the response of a hub") from error
    if info.sha is None or info.siblings is None:
        raise FileMetadataError("not the response of a hub")
    files = {file.rfilename: file for file in info.siblings}
    return info.sha, [files[name] for name in source.wanted_files(list(files))]


def _fetch_large(url: str, headers: dict[str, str], part: Path, size_bytes: int, progress: DownloadProgress) -> None:
    """Bring `part` to its full size, over as many connections as that takes. Raises `ConnectionLost`."""
    fruitless = 0
    with part.open("ab") as target:
        while (held_bytes := target.tell()) != size_bytes:
            try:
                _append(url, headers, target, size_bytes, progress)
            except httpx2.TransportError as error:
                reason = type(error).__name__
                fruitless = 0 if target.tell() > held_bytes else fruitless + 1
                if fruitless >= MAX_FRUITLESS_ATTEMPTS:
                    raise ConnectionLost(f"{reason}; what has arrived is kept") from error
                logger.warning("the download of %s was interrupted (%s): resuming", url, reason)
                time.sleep(RETRY_PAUSE_SECONDS)
        target.flush()
        os.fsync(target.fileno())


def _append(url: str, headers: dict[str, str], target: BinaryIO, size_bytes: int, progress: DownloadProgress) -> None:
    """Append the rest of the file. Start over if the server does not support ranges, or the part is too long."""
    rest = {"Range": f"bytes={target.tell()}-"} if 0 < target.tell() < size_bytes else {}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with http_stream_backoff(
        method="GET", url=url, headers=headers | rest, timeout=timeout, retry_on_exceptions=()
    ) as response:
        hf_raise_for_status(response)
        if target.tell() and response.status_code != httpx2.codes.PARTIAL_CONTENT:
            progress.add(-target.tell())
            target.seek(target.truncate(0))
        for chunk in response.iter_bytes():
            progress.add(target.write(chunk))
    if target.tell() != size_bytes:
        raise httpx2.RemoteProtocolError(f"{target.tell()} of {size_bytes} bytes")
