"""The level of the log, of every program of the service."""

import logging

_OURS = ("app", "workers", "llama.cpp")


def set_log_level(name: str, *, libraries: int = logging.INFO) -> None:
    """Write the log to stderr, from this level of `app.config.settings.LOG_LEVELS` on.

    Args:
        libraries: the least serious lines of libraries, at any level: at `debug` those of HTTP log whole requests.
    """
    level = logging.getLevelNamesMapping()[name.upper()]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(max(level, libraries))
    for ours in _OURS:
        logging.getLogger(ours).setLevel(level)
