"""The addresses that `server.host` means."""

import ipaddress
import socket

LOCALHOST = "localhost"
ALL_IPV4, ALL = "0.0.0.0", "::"  # noqa: S104 - a server is meant to be reached
_LOOPBACK_IPV4, _LOOPBACK_IPV6 = "127.0.0.1", "::1"
LOOPBACK_OF = {ALL_IPV4: _LOOPBACK_IPV4, ALL: _LOOPBACK_IPV6}
"""Where this machine reaches a service that listens on every address."""


def addresses_of(host: str) -> list[str]:
    """Return the addresses to listen on. `http://localhost` works with IPv4 and IPv6, unless the host is one address.

    Programs try ::1 first for localhost. So `0.0.0.0`, every address of IPv4, gets that one of IPv6 too. `::` means
    every address of both.
    """
    if host == ALL:
        return [ALL] if _takes_ipv4_too() else [ALL, ALL_IPV4]
    if host not in (LOCALHOST, ALL_IPV4):
        return [host]
    ipv4 = ALL_IPV4 if host == ALL_IPV4 else _LOOPBACK_IPV4
    return [ipv4, _LOOPBACK_IPV6] if _has_ipv6_loopback() else [ipv4]


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST


def with_port(address: str, port: int) -> str:
    """Return an address and a port as a URL has them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def service_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a service that listens on `host`."""
    return f"http://{with_port(LOCALHOST if host in LOOPBACK_OF else host, port)}"


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind((_LOOPBACK_IPV6, 0))
    except OSError:
        return False
    return True


def _takes_ipv4_too() -> bool:
    """Return whether a socket of IPv6 does, which the system decides (net.ipv6.bindv6only)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
