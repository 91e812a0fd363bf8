"""What pages of other sites may do here through the browser of their visitor.

Without API keys such a page could drive the service: browsers send simple requests for any page, and a page whose name
is bound to this machine's address afterwards (DNS rebinding) could read the responses too. With API keys it cannot: it
has no key. `server.allowed_origins` are exceptions; they get the headers of CORS. Decision 0041.
"""

import ipaddress
from collections.abc import Callable, Sequence

from flask import Flask, Request, Response, request
from werkzeug.sansio.utils import host_is_trusted

from app.api import ignored_fields, request_notes
from app.api.openai import unenforced
from app.config.server import ServerConfig
from app.errors import CrossSiteRequest, UnknownHost

_ANY = "*"
_OWN = ("same-origin", "none")  # values of Sec-Fetch-Site; none: an address that was typed, or a bookmark
_METHODS = "GET, POST, PATCH, DELETE"
_EXPOSED = ", ".join(
    (
        *("Location", "Retry-After", "Cache-Status", "Allow", "Accept-Encoding", "WWW-Authenticate", "X-Should-Retry"),
        *(ignored_fields.HEADER, unenforced.HEADER, request_notes.HEADER),
    )
)
"""What a page may read beside the headers that it always may, such as Content-Type."""
_PREFLIGHT_SECONDS = 600
_ENGINE_HOSTS = ("host.docker.internal", "gateway.docker.internal", "host.containers.internal")
"""Names by which containers call their machine. No other party can bind them: the domain internal is not delegated."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SHOWN = 100  # characters of a header in an error


def register(app: Flask, server: ServerConfig, *, needs_key: Callable[[], bool]) -> None:
    """Check host and origin of each request, and write the headers of CORS.

    Args:
        needs_key: returns whether requests need an API key. Asked only about a request that needs one to pass.
    """

    def is_allowed(origin: str | None) -> bool:
        return origin is not None and (origin in server.allowed_origins or _ANY in server.allowed_origins)

    def check() -> Response | None:
        # the environ, not request.headers: there a header that is missing costs an exception
        origin, host = request.environ.get("HTTP_ORIGIN"), request.environ.get("HTTP_HOST", "")
        may_call = is_allowed(origin)
        if may_call and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(request)
        try:
            _check_host(host, server.allowed_hosts)
            if not may_call:
                _check_site(request, origin, host)
        except (UnknownHost, CrossSiteRequest):
            if not needs_key():
                raise
        return None

    def permit(response: Response) -> Response:
        origin = request.environ.get("HTTP_ORIGIN")
        response.vary.add("Origin")
        if is_allowed(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response

    app.before_request(check)
    if server.allowed_origins:
        app.after_request(permit)


def _preflight(req: Request) -> Response:
    """Answer the question that a browser asks before a request with other headers than a form's. It carries no key."""
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    response.headers["Access-Control-Allow-Headers"] = req.headers.get("Access-Control-Request-Headers", "")
    response.access_control_max_age = _PREFLIGHT_SECONDS
    return response


def _check_host(host: str, allowed: Sequence[str]) -> None:
    """Raise UnknownHost for a name that another party may have bound to this machine's address."""
    if not (_is_local(host) or _ANY in allowed or (allowed and host_is_trusted(host, allowed))):
        raise UnknownHost(
            f"the host {host[:_SHOWN]!r} is not known here: add its name to server.allowed_hosts, make an API key, "
            "or use localhost or an address"
        )


def _is_local(host: str) -> bool:
    """Whether a `Host` is none, an address, a name of localhost or of the machine of containers, or without a dot."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    if name in _ENGINE_HOSTS or ("." not in name and ":" not in name):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.endswith(".localhost")
    return True


def _check_site(req: Request, origin: str | None, host: str) -> None:
    """Raise CrossSiteRequest, but not for a link to a page here."""
    site = req.environ.get("HTTP_SEC_FETCH_SITE")
    if not _is_cross_site(site, origin, host):
        return
    if not (req.method == "GET" and req.headers.get("Sec-Fetch-Mode") == "navigate"):
        raise CrossSiteRequest(
            f"a page of another site (origin {(origin or 'unknown')[:_SHOWN]}) sent this request: add its origin to "
            "server.allowed_origins, or make an API key"
        )


def _is_cross_site(site: str | None, origin: str | None, host: str) -> bool:
    if site is not None:  # a page cannot set it; browsers leave it out where they see plain HTTP and a name
        return site not in _OWN
    return origin is not None and not _is_origin_of(origin, host)


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether a page of this origin came from this host; a proxy may have taken the TLS away."""
    scheme, _, name = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and name.removesuffix(port) == host.lower().removesuffix(port)
