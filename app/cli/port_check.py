"""Whether the port of the service is free. Nothing but Python is needed to import this."""

import contextlib
import errno
import os
import socket

from app.cli.port_owner import port_owner
from app.config.addresses import addresses_of, family_of, with_port
from app.config.variables import PORT, variable_name
from app.errors import ConfigError


def check_port(host: str, port: int) -> None:
    """Raise ConfigError if the port is taken: gunicorn would retry for five seconds, die, and be restarted for ever."""
    for address in addresses_of(host):
        with socket.socket(family_of(address), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise ConfigError(_taken(address, port, error)) from None


def _taken(address: str, port: int, error: OSError) -> str:
    where, precise = with_port(address, port), variable_name("server.port")
    variable = precise if os.environ.get(precise) else PORT  # the precise one wins where both are set
    if error.errno != errno.EADDRINUSE:
        fix = f"set {variable} to a port that may be used, or server.host to an address of this machine"
        return f"server: cannot listen on {where} ({error.strerror}); {fix}"
    owner = port_owner(port)
    who = f"by {owner}" if owner else "by another user's program"
    fix = f"stop it, or choose another port: {variable}={_free_port(port)} make run"
    return f"server: cannot listen on {where}, which is taken {who}; {fix}"


def _free_port(taken: int) -> int:
    """Return the next port that nothing listens on now."""
    for port in range(taken + 1, 65_536):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    return 8000
