import pytest

from app.api.webhooks.post import is_public


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "168.63.129.16", "192.0.0.192",
        "100.100.100.200", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:93.184.216.34", "2002:7f00:1::", "2001:0:7f00:1::", "64:ff9b::7f00:1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_what_only_some_can_reach_is_not(address: str) -> None:
    assert not is_public(address)
