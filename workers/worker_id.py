"""What a worker process is called: `<host>-<pid>-<random>`."""

import os
import socket
import uuid


def new_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
