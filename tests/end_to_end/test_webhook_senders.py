"""A webhook whose sender is killed is sent by another process."""

import os
import signal
import threading
from pathlib import Path

import httpx
import redis

from app.jobs import keys
from tests.app.api.webhooks.receiver import SECRET, listening, silence
from tests.stack import Stack, engine_config
from tests.waiting import scaled, until

WEBHOOKS = {"webhooks": {"secret": SECRET, "allow_private": True}, "server": {"processes": 1}}


def test_a_webhook_survives_the_kill_of_its_sender(tmp_path: Path, redis_url: str) -> None:
    stack, released = Stack(tmp_path, redis_url, engine_config("instant:Instant", **WEBHOOKS)), threading.Event()
    with listening() as receiver, redis.Redis.from_url(redis_url) as raw:
        receiver.answers.append(silence(released))
        raw.set(keys.alive("instant"), "any-worker")
        try:
            stack.start_api()
            stack.wait_alive()
            body = {"prompt": "p", "webhook": {"url": receiver.url}}
            job = httpx.post(f"{stack.url}/agenerate", json=body, timeout=scaled(5)).json()
            httpx.post(f"{stack.url}/jobs/{job['id']}/cancel", timeout=scaled(5))
            until(lambda: receiver.requests)
            kill(stack)
            raw.zadd(keys.webhooks("instant"), {job["id"]: 1})  # its lease has expired
            stack.start_api()
            stack.wait_alive()
            until(lambda: not raw.zcard(keys.webhooks("instant")), 20)
        finally:
            released.set()
            stack.stop()
        assert receiver.ids == [f"msg_{job['id']}"] * 2
        assert receiver.verified()["data"]["status"] == "canceled"


def kill(stack: Stack) -> None:
    """Kill gunicorn's master and its worker."""
    master = stack.processes.pop("api")
    children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
    master.kill()
    master.wait()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
