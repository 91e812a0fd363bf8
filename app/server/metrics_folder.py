"""The folder in which all processes of this gunicorn count their metrics. Import it before prometheus_client.

Each gunicorn begins with an empty one, and removes it at its end.
"""

import atexit
import os
import shutil
import tempfile

_folder = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="llm-api-metrics-")
_owner = os.getpid()


@atexit.register
def _remove() -> None:
    if os.getpid() == _owner:  # not in a process of gunicorn that ends earlier
        shutil.rmtree(_folder, ignore_errors=True)
