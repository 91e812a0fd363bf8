"""Where the `llm-api run` of a data folder is reached: its port may have come from the environment of its terminal."""

import os
from collections.abc import Mapping
from pathlib import Path

from app.config.addresses import service_url
from app.config.loader import load_with_sources
from app.config.variables import PREFIX


def lock_file(data_dir: Path) -> Path:
    """Return the file that a run keeps locked; it contains the URL of its service, or nothing once it has ended."""
    return data_dir / ".lock"


def find_url(environ: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the run that uses the data folder, else that of the configuration. Raises ConfigError.

    A port that the environment names wins: its user means another service.
    """
    config, sources = load_with_sources(environ=environ)
    is_named = sources.get(("server", "port"), "").startswith(PREFIX)
    url = "" if is_named else _url_of_run(config.data_dir)
    return url or service_url(config.server.host, config.server.port)


def _url_of_run(data_dir: Path) -> str:
    try:
        return lock_file(data_dir).read_text(encoding="utf-8")
    except OSError:  # nothing has run here, or as another user
        return ""
