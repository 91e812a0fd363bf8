"""What only a worker's code can check of the configuration: a program of its own, as `app` does not import it."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from app.errors import ConfigError

_PROGRAM = "workers.check_config"


def check_by_worker() -> Sequence[str] | None:
    """Check the family, setup_params and model_params, without loading a model.

    Returns the lines of its warnings; None where there is no worker's code, as in the image of the API.
    Raises ConfigError.
    """
    if find_spec(_PROGRAM.partition(".")[0]) is None:
        return None
    ran = subprocess.run([sys.executable, "-m", _PROGRAM], stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    lines = [line for line in ran.stderr.splitlines() if line]
    if ran.returncode:
        raise ConfigError(lines[-1] if lines else f"the check by the worker's code ended with status {ran.returncode}")
    return lines
