"""Where the `llm-api run` of a data folder is reached: its port may have come from the environment of its terminal."""

from pathlib import Path

from app.config.addresses import service_url
from app.config.settings import Config


def lock_file(data_dir: Path) -> Path:
    """Return the file that a run keeps locked; it contains the URL of its service, or nothing once it has ended."""
    return data_dir / ".lock"


def url_of_run(config: Config) -> str:
    """Return the URL of the run that uses the data folder, else that of the configuration."""
    try:
        url = lock_file(config.data_dir).read_text(encoding="utf-8")
    except OSError:  # nothing has run here, or as another user
        url = ""
    return url or service_url(config.server.host, config.server.port)
