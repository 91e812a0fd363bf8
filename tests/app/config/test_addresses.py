import socket

import pytest

from app.config import addresses
from app.config.addresses import addresses_of, family_of, is_loopback, with_port


@pytest.mark.parametrize(
    ("host", "has_ipv6", "takes_both", "expected"),
    [
        ("0.0.0.0", True, True, ["0.0.0.0", "::1"]),
        ("0.0.0.0", False, False, ["0.0.0.0"]),
        ("localhost", True, True, ["127.0.0.1", "::1"]),
        ("localhost", False, False, ["127.0.0.1"]),
        ("::", True, True, ["::"]),
        ("::", True, False, ["::", "0.0.0.0"]),
        ("127.0.0.1", True, True, ["127.0.0.1"]),
        ("::1", True, True, ["::1"]),
        ("192.0.2.7", True, True, ["192.0.2.7"]),
    ],
)
def test_a_host_means_these_addresses(
    monkeypatch: pytest.MonkeyPatch, host: str, has_ipv6: bool, takes_both: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(addresses, "_has_ipv6_loopback", lambda: has_ipv6)
    monkeypatch.setattr(addresses, "_takes_ipv4_too", lambda: takes_both)
    assert addresses_of(host) == expected


def listen(address: str) -> socket.socket:
    """Listen as gunicorn does: with the system's choice whether a socket of IPv6 takes IPv4 too."""
    listener = socket.socket(family_of(address), socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    return listener


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost"])
def test_localhost_is_reached_by_each_family_that_this_machine_has(host: str) -> None:
    reached = set()
    for listener in [listen(address) for address in addresses_of(host)]:
        for name in ("127.0.0.1", "::1"):
            with socket.socket(family_of(name), socket.SOCK_STREAM) as client:
                if client.connect_ex((name, listener.getsockname()[1])) == 0:
                    reached.add(name)
        listener.close()
    assert reached == {"127.0.0.1", *(["::1"] if addresses._has_ipv6_loopback() else [])}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True)],
        *[("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False)],
    ],
)
def test_only_loopback_addresses_are_out_of_reach_of_others(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_address_of_ipv6_has_brackets_before_a_port() -> None:
    assert [with_port("::1", 80), with_port("127.0.0.1", 80)] == ["[::1]:80", "127.0.0.1:80"]
