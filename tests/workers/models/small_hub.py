"""A small Hugging Face Hub on loopback: real HTTP, the Hub's headers and error codes, and faults on demand.

Like the Hub it sends large files (here: the suffixes of `LARGE`) from another origin, by redirect: the hub is
`127.0.0.1:port`, the file store `localhost:port`.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import unquote

from tests.waiting import scaled

LARGE = (".gguf", ".safetensors", ".bin")
COMMIT = hashlib.sha1(b"the only commit").hexdigest()


@dataclass(slots=True, kw_only=True)
class Repo:
    """token: without it the repository is private (or, when `gated`, visible and closed)."""

    files: dict[str, bytes]
    token: str | None = None
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    range: str | None
    authorized: bool


@dataclass(slots=True)
class SmallHub:
    """cuts: one entry per answer with a body: after how many bytes the connection breaks. cut_by: "reset" or "close".

    hold_after: send so many bytes, then wait for `resume`; `held` is set meanwhile.
    """

    repos: dict[str, Repo]
    cuts: list[int] = field(default_factory=list)
    cut_by: str = "close"
    hold_after: int | None = None
    status: int | None = None  # answer everything with it
    ranges: bool = True
    xet: bool = False  # large files are announced as stored on Xet, whose server cannot be reached
    page: bytes | None = None  # answer everything with it, as a captive portal does
    held: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def bodies(self) -> list[Request]:
        """The requests for the bytes of large files."""
        return [request for request in self.requests if request.method == "GET" and request.path.startswith("/store/")]


@contextmanager
def serving(hub: SmallHub) -> Iterator[SmallHub]:
    """Serve until the end of the block; after it nothing listens on the port."""
    server = _Server(hub)
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    """A file in the listing, as the Hub answers to `?blobs=true`."""
    size = len(content)
    sha256 = hashlib.sha256(content).hexdigest()
    lfs = {"lfs": {"sha256": sha256, "size": size, "pointerSize": 130}} if name.endswith(LARGE) else {}
    return {"rfilename": name, "size": size, "blobId": COMMIT, **lfs}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: SmallHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: some tests kill the client."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> SmallHub:
        return cast(_Server, self.server).hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        authorized = "Authorization" in self.headers
        request = Request(method=self.command, path=path, range=self.headers.get("Range"), authorized=authorized)
        self.hub.requests.append(request)
        if self.hub.status:
            self._error(self.hub.status)
        elif self.hub.page is not None:
            self._send(self.hub.page, {"Content-Type": "text/html"})
        elif match := re.fullmatch(r"/api/models/(.+?/.+?)(?:/revision/(.+))?", path):
            self._listing(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/(.+?/.+?)/resolve/(.+?)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/store/(.+?/.+?)/(.+)", path):
            self._body(self.hub.repos[match[1]].files[match[2]], {})
        else:
            self._error(404)

    def _listing(self, repo_id: str, revision: str) -> None:
        if repo := self._open_repo(repo_id, revision, listing=True):
            siblings = [_sibling(name, content) for name, content in repo.files.items()]
            body: dict[str, Any] = {"id": repo_id, "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo_id: str, revision: str, filename: str) -> None:
        repo = self._open_repo(repo_id, revision, listing=False)
        if not repo:
            return
        content = repo.files.get(filename)
        if content is None:
            self._error(404, "EntryNotFound")
        elif filename.endswith(LARGE):
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
            if self.hub.xet:
                headers |= {"X-Xet-Hash": etag.strip('"'), "X-Xet-Refresh-Route": "http://127.0.0.1:1/token"}
            self._send(b"", headers | {"Location": f"{self.hub.store}/store/{repo_id}/{filename}"}, status=302)
        else:
            git_blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._body(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{git_blob}"'})

    def _open_repo(self, repo_id: str, revision: str, *, listing: bool) -> Repo | None:
        """Return the repository, or None after sending the Hub's answer to a client without access."""
        repo = self.hub.repos.get(repo_id)
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        closed = repo is not None and repo.token is not None and bearer != repo.token
        if repo is None or (closed and not repo.gated):
            self._error(404 if bearer else 401, "RepoNotFound")
        elif closed and not listing:
            self._error(403 if bearer else 401, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._error(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _body(self, content: bytes, headers: dict[str, str]) -> None:
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if begin and self.hub.ranges:
            start = int(begin[1])
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(content[start:], headers | {"Content-Range": span}, status=206, faulty=True)
        else:
            self._send(content, headers, faulty=True)

    def _error(self, status: int, code: str | None = None) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": f"{code}!"} if code else {}, status=status)

    def _send(self, body: bytes, headers: dict[str, str], *, status: int = 200, faulty: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if faulty and self.hub.cuts:
            self._cut(body[: self.hub.cuts.pop(0)])
        elif faulty and self.hub.hold_after is not None:
            self._hold(body, self.hub.hold_after)
        else:
            self.wfile.write(body)

    def _cut(self, beginning: bytes) -> None:
        self.wfile.write(beginning)
        self.close_connection = True
        if self.hub.cut_by == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _hold(self, body: bytes, count: int) -> None:
        self.wfile.write(body[:count])
        self.hub.held.set()
        self.hub.resume.wait(scaled(30))
        self.wfile.write(body[count:])
