"""The service as its clients see it: HTTP to one address, with errors as one line that names the cure.

The standard library does it: the image of the API holds no other client of HTTP.
"""

import contextlib
import http.client
import ipaddress
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import IO, Any

import click

from app.cli.typed_options import with_options_named
from app.config.own_command import own_command

ANSWER_SECONDS = 60.0  # a stream sends something every 10 s
_JSON = "application/json"
_PIECE_BYTES = 2**16


class RequestFailed(click.ClickException):
    """A request that brought no result. status: of HTTP; None: there was no response."""

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override] # click reads it and sets it nowhere
        if self.status is None or self.status == http.client.SERVICE_UNAVAILABLE:
            return os.EX_UNAVAILABLE
        return os.EX_NOPERM if self.status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN) else 1

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed by itself: the service restarts, or is busy."""
        is_passing = self.status == http.client.SERVICE_UNAVAILABLE and self.code != "no_worker"
        return self.status is None or is_passing


def resource(*parts: str) -> str:
    """Return a path of parts: the first as it is, the others, which people type, quoted."""
    return "/".join([parts[0], *(urllib.parse.quote(part, safe="") for part in parts[1:])])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the API key is for the address that was named, and for no other."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


class Client:
    """Sends requests to one service. api_key: sent with each, None sends none."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Accept": _JSON, "User-Agent": "llm-api"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if _is_local(self.url):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, **query: object) -> Any:
        """Return the JSON of a resource. Parameters of the query that are None are left out."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self._json("GET", path + (f"?{urllib.parse.urlencode(given)}" if given else ""))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        return self._json("POST", path, data, {"Content-Type": _JSON} if data else {})

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json("PATCH", path, json.dumps(body).encode(), {"Content-Type": _JSON})

    def upload(self, path: str, fields: Mapping[str, str], name: str, content: bytes) -> Any:
        """Send a form with one file, its field `file`."""
        boundary = f"llm-api-{os.urandom(16).hex()}"
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        )
        safe = urllib.parse.quote(name, safe=" ()[]!,;=+@&~'")
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{safe}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        form = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return self._json("POST", path, form, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def download(self, path: str) -> Iterator[bytes]:
        with self.open("GET", path) as response, _transport_explained(self.url):
            while piece := response.read(_PIECE_BYTES):
                yield piece

    def _json(self, method: str, path: str, data: bytes | None = None, headers: Mapping[str, str] = {}) -> Any:
        with self.open(method, path, data, headers) as response, _transport_explained(self.url):
            body = response.read()
        if not body:
            return None
        try:
            return json.loads(body)
        except ValueError:
            raise RequestFailed(_stranger(self.url, 200), status=200) from None

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] = {},
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, and give its response. Raises RequestFailed."""
        request = urllib.request.Request(  # noqa: S310 - `service_url` accepts http and https only
            f"{self.url}{path}", data, {**self._headers, **headers}, method=method
        )
        with contextlib.ExitStack() as resources:
            with _transport_explained(self.url):
                try:
                    response = self._opener.open(request, timeout=ANSWER_SECONDS)
                except urllib.error.HTTPError as error:
                    with error:
                        raise _failure(self.url, error.code, error.headers.get("Location"), error) from None
                resources.enter_context(response)
            yield response


@contextlib.contextmanager
def _transport_explained(url: str) -> Iterator[None]:
    """Translate the errors of a connection that cannot be made, or that breaks."""
    try:
        yield
    except urllib.error.URLError as error:
        raise RequestFailed(_unreachable(url, error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise RequestFailed(_unreachable(url, error)) from None


def _unreachable(url: str, reason: object) -> str:
    if isinstance(reason, ssl.SSLError):
        fix = "check that the service has TLS, and that this machine trusts its certificate (SSL_CERT_FILE)"
    elif isinstance(reason, TimeoutError):
        fix = f"check that the service still responds ({own_command('doctor')}), or name another with --url"
    else:
        fix = f"start the service ({own_command('run')}), or name where it is with --url or LLM_API_URL"
    name = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return f"cannot reach {url} ({name}); {fix}"


def _failure(url: str, status: int, location: str | None, body: IO[bytes]) -> RequestFailed:
    """Return the error of a response: the detail of a problem document or of OpenAI's shape, and a cure."""
    if 300 <= status < 400:
        return RequestFailed(f"{url} redirects to {location}; name that address with --url", status=status)
    try:
        document = json.loads(body.read())
        shape = document.get("error", document)
        detail, code = str(shape.get("detail") or shape["message"]), str(shape.get("code", ""))
    except (OSError, ValueError, KeyError, AttributeError, http.client.HTTPException):
        return RequestFailed(_stranger(url, status), status=status)
    fields = "".join(
        f"; {path}: {' '.join(messages)}"
        for path, messages in document.get("errors", {}).items()
        if messages != [detail] and f"{path}: {messages[0]}" not in detail
    )
    cure = "; pass it with --api-key or LLM_API_KEY" if status == http.client.UNAUTHORIZED else ""
    message = with_options_named(f"{detail}{fields}", document.get("errors", {}))
    return RequestFailed(f"{message}{cure}", status=status, code=code)


def _stranger(url: str, status: int) -> str:
    return f"{url} does not respond as LLM API does (status {status}); check the address in --url or LLM_API_URL"


def _is_local(url: str) -> bool:
    """Return whether a proxy of the environment would lead away from what is meant."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
