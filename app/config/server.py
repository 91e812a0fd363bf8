"""The keys of the configuration about HTTP: where the API listens, and what it accepts of whom."""

from dataclasses import dataclass
from typing import Annotated

from marshmallow import validate

from app.config.addresses import ALL_IPV4
from app.config.schema import Texts, text, whole_number

_MIN_THREADS = 4  # waiters are limited below the thread count, so that /healthz always gets a free one


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: Annotated[
        str,
        text(
            "The address to listen on. `0.0.0.0`: every address of IPv4, and `::1`. `::`: every address of IPv6 and "
            "IPv4. `localhost`: 127.0.0.1 and `::1`.",
            "an address to listen on, such as 0.0.0.0 or 127.0.0.1",
        ),
    ] = ALL_IPV4
    port: Annotated[int, whole_number("The port to listen on; `LLM_API_PORT` sets it too.", 1, 65_535)] = 8000
    health_port: Annotated[
        int | None,
        whole_number(
            "Another port, which answers every request with 200 while the process that accepts it works, however many "
            "clients `server.port` has. For probes; do not publish it. null: none.",
            1,
            65_535,
            nullable=True,
        ),
    ] = None
    processes: Annotated[int, whole_number("The number of gunicorn workers.", 1, 1024)] = 2
    threads: Annotated[
        int, whole_number("Threads per process; each waiting client occupies one.", _MIN_THREADS, 65_536)
    ] = 512
    max_body_bytes: Annotated[int, whole_number("The largest request body; a larger one gets 413.", 1024)] = (
        4 * 1024 * 1024
    )
    header_seconds: Annotated[
        int, whole_number("How long the head of a request may take to arrive; then the connection closes.", 1)
    ] = 10
    body_seconds: Annotated[
        int,
        whole_number(
            "How long a body may take to arrive, then 408; a long one gets 1 s more for each 16 KiB that arrive.", 1
        ),
    ] = 20
    connections_per_address: Annotated[
        int,
        whole_number(
            "How many connections of one address (64 bits of an IPv6 address) a process keeps that are idle or whose "
            "request has not arrived; the oldest closes for a new one. In all a process keeps 2,048.",
            1,
            2048,
        ),
    ] = 1024

    allowed_hosts: Annotated[
        tuple[str, ...],
        Texts(
            "Names by which the service may be called without `auth.api_keys`, beside addresses, localhost and names "
            "without a dot: `llm.example.org`, `.example.org` for all below it, or `*`. Others get 403.",
            "a list of names without a port, such as llm.example.org, .example.org or *",
            validate.Regexp(r"^(\*|\.?[\w-]+(\.[\w-]+)*)$"),
        ),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Texts(
            "Sites whose pages may call the API from a browser (CORS), such as `https://app.example.org`, or `*`. "
            "Without `auth.api_keys` requests of other sites' pages get 403.",
            "a list of origins such as https://app.example.org, without a path, or *",
            validate.Regexp(r"^(\*|null|[a-z][a-z0-9+.-]*://[^/\s]*)$"),
        ),
    ] = ()
