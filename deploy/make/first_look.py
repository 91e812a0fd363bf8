"""Finds what would stop `make run` before it takes minutes: `python3 deploy/make/first_look.py [--whole]`.

It needs nothing but Python, and then it looks at the file of the configuration and at the port, as far as that goes
without a parser of YAML. With the packages of the API, `--whole` checks all that does not need the worker's.
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.cli.port_check import check_port
from app.config.addresses import ALL_IPV4
from app.config.config_file import DEFAULT_PATH, config_text
from app.config.variables import CONFIG_PATH, PORT, PREFIX, variable_name
from app.errors import ConfigError

_DEFAULT_PORT = 8000  # of app/config/server.py, which needs packages
_COMMENT = re.compile(r"(^|\s)#.*")
_PORT_OF_FILE = re.compile(r"""\bport["']?\s*:\s*(\d+)\b""")


def whole_configuration() -> None:
    """Check the configuration and its port. Raises ConfigError."""
    from app.config.loader import load_config

    server = load_config().server
    check_port(server.host, server.port)


def first_look() -> None:
    """Check what can be read without a parser of YAML. Raises ConfigError."""
    environ = {name.upper(): value for name, value in os.environ.items() if value}
    text = config_text(Path(environ.get(CONFIG_PATH, DEFAULT_PATH))) or ""
    text = "\n".join(_COMMENT.sub("", line) for line in text.splitlines())
    port = _port(environ, text)
    is_elsewhere = "host" in text or {PREFIX + "SERVER", PREFIX + "HOST", variable_name("server.host")} & set(environ)
    if port is not None and not is_elsewhere:
        check_port(ALL_IPV4, port)


def _port(environ: dict[str, str], text: str) -> int | None:
    """Return the port; None: only a parser of YAML can tell."""
    for name in (variable_name("server.port"), PORT):
        if environ.get(name, "").isdecimal():
            return _possible(environ[name])
    ports = set(_PORT_OF_FILE.findall(text))
    if not ports:
        return _DEFAULT_PORT
    return _possible(ports.pop()) if len(ports) == 1 else None


def _possible(digits: str) -> int | None:
    return port if 0 < (port := int(digits)) < 65_536 else None


def main() -> int:
    """Return the exit status: 78 after one line on stderr."""
    try:
        whole_configuration() if sys.argv[1:] == ["--whole"] else first_look()
    except ConfigError as error:
        sys.stderr.write(f"{error.detail}\n")
        return os.EX_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
