"""What a WSGI server loads: `app.server.wsgi:app`, in each process that serves requests, after the fork."""

import sys

from app.api.application import create_app, start_threads
from app.config.loader import load_config
from app.errors import StartupError
from app.server import body_errors

_APP_LOAD_ERROR = 4  # gunicorn gives up on this exit status, where it would start the process again and again

try:
    app = create_app(load_config())
    body_errors.register(app)
    start_threads(app)
except StartupError as error:
    sys.stderr.write(f"{error.detail}\n")
    sys.exit(_APP_LOAD_ERROR)
