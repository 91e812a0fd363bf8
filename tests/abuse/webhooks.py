"""Receivers of webhooks that never respond."""

import http.server
import socket
import threading
import time
from collections import Counter

from tests.abuse.attacker import Outcomes, Target
from tests.abuse.service import VICTIM_KEY

_RECEIVERS = 32
_JOB = {"prompt": "p", "params": {"max_tokens": 1}}


def silent_receivers(target: Target) -> Outcomes:
    """Webhooks to 32 addresses that accept and never respond; beside them one of another client's."""
    outcomes: Outcomes = Counter()
    arrived = threading.Event()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None: ...

    with (
        socket.create_server(("0.0.0.0", 0), backlog=1024) as silent,
        target.client() as attacker,
        target.client(VICTIM_KEY) as victim,
    ):
        for number in range(_RECEIVERS):
            url = f"http://127.1.0.{number + 1}:{silent.getsockname()[1]}/"
            outcomes[str(attacker.post("/agenerate", json={**_JOB, "webhook": {"url": url}}).status_code)] += 1
        time.sleep(1)
        receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_port}/"
        started = time.monotonic()
        victim.post("/agenerate", json={**_JOB, "webhook": {"url": url}})
        in_time = arrived.wait(target.seconds)
        outcomes["other webhook after ms" if in_time else "other webhook not sent"] += round(
            (time.monotonic() - started) * 1000
        )
        receiver.shutdown()
    return outcomes
