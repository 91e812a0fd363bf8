"""The service under attack, as `make run` starts it, and the memory of its processes."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.stack import SMOLLM2, Stack
from tests.waiting import until

HEALTHY_KEY = "key-of-the-healthy-client"
ATTACKER_KEY = "key-of-the-attacker"
VICTIM_KEY = "key-of-the-victim"
"""Whose prompts an attack guesses, or whose webhooks it delays: not the client that is measured."""

LOOP = "<loop>"
"""A message for which the chat template of this service never ends."""

_TEMPLATE = (
    "{% for message in messages %}"
    f"{{% if '{LOOP}' in message.content %}}"
    "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)
_MEGABYTE = 1024**2

Megabytes = Counter[str]
"""Proportional memory by kind of process: api, worker, valkey. Processes of one kind are added up."""


@dataclass(frozen=True, slots=True)
class Attacked:
    """A running service. root: the supervisor."""

    stack: Stack
    root: psutil.Process

    @property
    def url(self) -> str:
        return self.stack.url

    def memory(self) -> Megabytes:
        megabytes: Megabytes = Counter()
        for process in self.root.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                megabytes[_kind(process)] += round(process.memory_full_info().pss / _MEGABYTE)
        return megabytes

    def programs(self) -> frozenset[int]:
        """Return the ids of the processes that must live on: helpers of a worker may be ended."""
        lasting = [child for child in self.root.children() if child.is_running()]
        gunicorn = [one for child in lasting if _kind(child) == "api" for one in child.children()]
        return frozenset(process.pid for process in (*lasting, *gunicorn))

    def is_private(self) -> bool:
        """Whether only this user may enter the folder of the data, and read what Valkey has in it."""
        data = self.stack.folder / "data"
        valkey = [path for path in data.rglob("*") if path.name != ".lock"]
        return all(path.lstat().st_mode & 0o077 == 0 for path in (data, *valkey))


@contextlib.contextmanager
def attacked_service(folder: Path) -> Iterator[Attacked]:
    """Start Valkey, an API of two processes and one worker with SmolLM2, ready to serve."""
    config = {
        **SMOLLM2,
        "model_params": {**SMOLLM2["model_params"], "n_ctx": 2048, "chat_template": _TEMPLATE},
        "worker": {"slots": 6},
        "data_dir": str(folder / "data"),
        "server": {"processes": 2},
        "auth": {"api_keys": [HEALTHY_KEY, ATTACKER_KEY, VICTIM_KEY]},
        "webhooks": {"secret": "whsec_" + "YWJ1c2Vy" * 4, "allow_private": True},
    }
    stack = Stack(folder, "", config)
    try:
        process = stack.start("service", "app.cli", "run")
        stack.wait_alive("service")
        _until_ready(stack)
        yield Attacked(stack, psutil.Process(process.pid))
    finally:
        stack.stop()


def _until_ready(stack: Stack) -> None:
    with stack.client(headers={"Authorization": f"Bearer {HEALTHY_KEY}"}) as http:
        until(lambda: http.get("/readyz").status_code == 200, 60, "a ready worker")


def _kind(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    return next((kind for kind in ("gunicorn", "valkey") if kind in command), "worker").replace("gunicorn", "api")
