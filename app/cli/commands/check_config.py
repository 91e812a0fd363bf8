"""`llm-api check-config`: check the configuration as API and worker do, and start nothing."""

import subprocess
import sys
from importlib.util import find_spec

import click

from app.config.loader import load_config
from app.errors import ConfigError

_WORKER_CHECK = "workers.check_config"


@click.command
def check_config() -> None:
    """Check the configuration and start nothing.

    Where a worker is installed this includes what only a worker can check: setup_params, model_params and whether the
    family is installed.
    """
    config = load_config()
    rest = "" if _checked_by_worker() else "; setup_params and model_params were not checked, as no worker is installed"
    click.echo(f"the configuration is valid: model {config.model_name} of family {config.model_family}{rest}")


def _checked_by_worker() -> bool:
    """Return False where there is no worker's code, as in the image of the API. Raises ConfigError."""
    if find_spec(_WORKER_CHECK.partition(".")[0]) is None:
        return False
    ran = subprocess.run([sys.executable, "-m", _WORKER_CHECK], stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    *warnings, last = ran.stderr.splitlines() or [""]
    if ran.returncode:
        raise ConfigError(last or f"the check by the worker's code ended with status {ran.returncode}")
    sys.stderr.writelines(f"{line}\n" for line in (*warnings, last) if line)
    return True
