"""The Hugging Face Hub as a worker sees it: which files a repository holds, their bytes from any offset on.

Everything goes through huggingface_hub: addresses, tokens (`HF_TOKEN`), `HF_ENDPOINT`, proxies, error codes. Only the
loop that writes the bytes is ours (`workers.models.hub_download`), because `hf_hub_download` 2.4.0 does not resume: it
writes to a file with a random name and throws that away when it fails. For the same reason hf-xet is not used: plain
HTTP answers `Range`, and the Hub serves every file that way.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from json import JSONDecodeError
from typing import NoReturn

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined] # documented

from app.errors import ModelUnavailable
from workers.suggestions import closest

_LIBRARY_ERRORS = (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.RequestError, httpx2.InvalidURL)

# They log every address they ask for, and those of the Hub's file store carry a signature that opens the file.
for _chatty in ("httpx2", "httpcore2"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


class ConnectionLost(Exception):
    """The bytes stopped coming; asking again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file at one commit. size: bytes, None where the hub does not tell. etag: the SHA-256 of a large file."""

    filename: str
    url: str
    commit: str
    etag: str
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubClient:
    """One repository at one revision. Every method raises `ModelUnavailable` with one line that names the cure."""

    repo_id: str
    revision: str
    token: str | None = field(default=None, repr=False)  # None: huggingface_hub finds HF_TOKEN or a stored login

    @property
    def endpoint(self) -> str:
        # huggingface_hub reads the variable once, at its import; asked here, it holds from the next call on.
        return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT

    def file(self, filename: str, commit: str | None = None) -> RemoteFile:
        """What the hub says about a file, at `commit` or where the revision stands now."""
        with self._explained(filename):
            url = hf_hub_url(self.repo_id, filename, revision=commit or self.revision, endpoint=self.endpoint)
            found = get_hf_file_metadata(url, token=self.token, endpoint=self.endpoint)
            if found.commit_hash is None or found.etag is None:
                self._raise_no_hub()
            return RemoteFile(
                filename=filename,
                url=hf_hub_url(self.repo_id, filename, revision=found.commit_hash, endpoint=self.endpoint),
                commit=found.commit_hash,
                etag=found.etag,
                size=found.size,
            )

    def listing(self) -> tuple[str, list[str]]:
        """The commit where the revision stands now, and the names of its files."""
        with self._explained():
            return self._listing()

    @contextmanager
    def opened(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The file's bytes from `offset` on, or from 0 on where the server cannot do that: the first value says which.

        Raises:
            ConnectionLost: also while the bytes are read.
        """
        headers = build_hf_headers(token=self.token) | {"Accept-Encoding": "identity"}  # compressed: no ranges, no size
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._explained(file.filename):
            try:
                timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
                with get_session().stream("GET", file.url, headers=headers, timeout=timeout) as response:
                    hf_raise_for_status(response)
                    yield (offset if response.status_code == httpx2.codes.PARTIAL_CONTENT else 0), response.iter_bytes()
            except httpx2.TransportError as error:
                raise ConnectionLost(type(error).__name__) from error
            except HfHubHTTPError as error:
                if error.response.is_server_error:
                    raise ConnectionLost(f"HTTP {error.response.status_code}") from error
                raise

    def _listing(self) -> tuple[str, list[str]]:
        api = HfApi(endpoint=self.endpoint, token=self.token)
        try:
            info = api.model_info(self.repo_id, revision=self.revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        except (JSONDecodeError, TypeError, LookupError):  # an answer, but not a hub's: a portal's login page, say
            self._raise_no_hub()
        if info.sha is None or info.siblings is None:
            self._raise_no_hub()
        return info.sha, [sibling.rfilename for sibling in info.siblings]

    def _raise_no_hub(self) -> NoReturn:
        raise ModelUnavailable(
            f"{self.endpoint} does not answer as a Hugging Face Hub does: check HF_ENDPOINT and the proxy settings"
        )

    @contextmanager
    def _explained(self, filename: str | None = None) -> Iterator[None]:
        try:
            yield
        except _LIBRARY_ERRORS as error:
            raise ModelUnavailable(self._explain(error, filename)) from error

    def _explain(self, error: Exception, filename: str | None) -> str:
        repo, endpoint = self.repo_id, self.endpoint
        match error:
            case GatedRepoError():
                return f"{repo} is gated: accept its terms at {endpoint}/{repo}, then {self._token_cure}"
            case RepositoryNotFoundError():
                return (
                    f"{endpoint} has no model {repo}: check setup_params.repo_id; if it is private, {self._token_cure}"
                )
            case RevisionNotFoundError():
                return f"{repo} has no revision {self.revision}: correct setup_params.revision (default: main)"
            case RemoteEntryNotFoundError():
                return f"{repo} has no file {filename}: correct setup_params.filename{self._names_like(filename)}"
            case HFValidationError():
                return f"setup_params.repo_id must look like owner/name, not {repo}"
            case OfflineModeIsEnabled():
                return f"{repo} is not downloaded yet and HF_HUB_OFFLINE is set: unset it for the first start"
            case HfHubHTTPError():
                return self._explain_status(error.response.status_code)
            case _:
                return self.unreachable(type(error).__name__)

    def _explain_status(self, status: int) -> str:
        match status:
            case 401 | 403:
                return f"{self.endpoint} refuses {self.repo_id} (HTTP {status}): {self._token_cure}"
            case 429:
                return f"{self.endpoint} limits our requests (HTTP 429): wait a few minutes, or {self._token_cure}"
            case _:
                return f"{self.endpoint} is in trouble (HTTP {status}): try again later, or set setup_params.path"

    def unreachable(self, reason: str) -> str:
        """The line for a hub that does not answer."""
        return (
            f"cannot reach {self.endpoint} for {self.repo_id} ({reason}): "
            "check the network, the proxy and HF_ENDPOINT, or set setup_params.path to a local copy"
        )

    @property
    def _token_cure(self) -> str:
        if self.token or get_token():
            return "use a token that may read it in HF_TOKEN or setup_params.token (the one given is not enough)"
        return "set HF_TOKEN or setup_params.token"

    def _names_like(self, filename: str | None) -> str:
        names: list[str] = []
        with suppress(ModelUnavailable, *_LIBRARY_ERRORS):  # a hint only; the error to tell is the first one
            names = [name for name in self._listing()[1] if name.endswith(".gguf")]
        return f"; it has {closest(filename or '', names)}" if names else ""
