"""Which process has a port."""

import os
import socket

import pytest

from app.cli.port_owner import port_owner
from tests.stack import free_port


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_the_process_that_listens_is_named_with_its_command(address: str, family: socket.AddressFamily) -> None:
    try:
        server = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        owner = port_owner(server.getsockname()[1])
    assert owner is not None and owner.pid == os.getpid()
    assert "py" in owner.command and "\0" not in owner.command


def test_a_free_port_has_no_owner() -> None:
    assert port_owner(free_port()) is None
