"""The names of the configuration's environment variables. Nothing but Python is needed to import this."""

PREFIX = "LLM_API_"
CONFIG_PATH = PREFIX + "CONFIG"
PORT = PREFIX + "PORT"
"""The port of `make run` and of compose: `127.0.0.1:9000` there, and `tcp://10.0.0.1:8000` by Kubernetes."""


def variable_name(key: str) -> str:
    """Return the environment variable of a key: `LLM_API_SERVER__PORT` for `server.port`."""
    return PREFIX + key.upper().replace(".", "__")
