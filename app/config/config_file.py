"""The text of the configuration's file. Nothing but Python is needed to import this."""

from pathlib import Path

from app.config.variables import CONFIG_PATH
from app.errors import ConfigError

DEFAULT_PATH = "./config.yaml"


def config_text(file: Path) -> str | None:
    """Return the text of the file; None where it is missing and was not named. Raises ConfigError."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if file == Path(DEFAULT_PATH):
            return None
        raise ConfigError(f"{file}: no such file; create it or set {CONFIG_PATH} to where it is") from None
    except IsADirectoryError:
        fix = "Docker makes a folder of a missing file that it mounts: remove the folder, put the file there"
        raise ConfigError(f"{file}: is a folder, not a file; {fix}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: is not UTF-8 text") from None
