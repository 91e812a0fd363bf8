"""Check the configuration as a worker does, without loading or fetching a model: `python -m workers.check_config`.

`python -m app.cli check-config` runs it where a worker's code is installed: the API does not import it.
"""

import os
import sys

from app.config.loader import load_config
from app.errors import StartupError
from workers.engines.registry import load_family


def main() -> int:
    """Return the exit status: 78 after one line on stderr."""
    try:
        config = load_config()
        load_family(config.model_family).check(config)
    except StartupError as error:
        sys.stderr.write(f"{error.detail}\n")
        return os.EX_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
