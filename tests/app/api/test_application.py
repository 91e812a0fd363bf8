import subprocess
import sys
from pathlib import Path

import pytest

from app.api.application import max_waiters
from app.config.server import ServerConfig
from tests.waiting import scaled

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("threads", "waiting"), [(512, 480), (1064, 1032), (64, 48), (4, 3), (1, 1)])
def test_some_threads_never_wait(threads: int, waiting: int) -> None:
    assert max_waiters(ServerConfig(threads=threads)) == waiting


def test_a_wrong_configuration_stops_the_start_with_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("modle_family: llama\n")
    environment = {"LLM_API_CONFIG": str(config), "PYTHONPATH": str(ROOT), "PATH": ""}
    for module in ("app.server.wsgi", "app.server.gunicorn_settings"):
        ran = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=scaled(60),
        )
        assert ran.returncode != 0
        assert ran.stderr.count("\n") == 1 and "modle_family" in ran.stderr


def test_the_api_is_small(tmp_path: Path) -> None:
    """A process that waits for requests may take 80 MB; gunicorn and its threads take some of that."""
    code = (
        "from app.config.settings import Config\n"
        "from app.api.application import create_app\n"
        "create_app(Config(model_name='m', redis_url='redis://127.0.0.1:1/0'))\n"
        "print(open('/proc/self/statm').read().split()[1])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(ran.stdout) * 4096 < 70e6
