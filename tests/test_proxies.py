"""The examples of proxies in deploy/: their syntax, and what the service needs of a proxy in front of it."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of, working
from tests.stack import ROOT, Stack, free_port
from tests.valkey import Valkey
from tests.waiting import scaled

MODEL = "proxied"
KEY = {"Authorization": "Bearer a-key"}
CERTIFICATE = ROOT / "tests/app/server/localhost.pem"
HOST = "localhost"


@dataclass(frozen=True)
class Proxy:
    """write: makes a configuration of the example for a folder, a port and the service's port, and returns the commands
    that check and run it."""

    program: str
    write: Callable[[Path, int, int], tuple[list[str], list[str]]]


def pause(turn: Turn) -> None:
    time.sleep(0.5)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def replaced(text: str, replacements: dict[str, str]) -> str:
    """Replace patterns, each of which must be there."""
    for pattern, replacement in replacements.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, f"nothing in the example is {pattern}"
    return text


def write_nginx(folder: Path, port: int, service: int) -> tuple[list[str], list[str]]:
    example = (ROOT / "deploy/nginx.conf").read_text()
    site = replaced(
        example,
        {
            "127.0.0.1:8000": f"127.0.0.1:{service}",
            r"listen 443": f"listen 127.0.0.1:{port}",
            r"listen \[::\]:443 ssl;": "",
            r"/etc/ssl/llm-api/\w+\.pem": str(CERTIFICATE),
        },
    )
    (folder / "llm-api.conf").write_text(site)
    paths = " ".join(f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy"))
    user = "user root root;" if os.geteuid() == 0 else ""  # else it would take another one, who cannot read this folder
    main = folder / "nginx.conf"
    main.write_text(
        f"{user} daemon off; pid {folder / 'pid'}; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder / 'llm-api.conf'}; }}\n"
    )
    return ["nginx", "-t", "-q", "-c", str(main)], ["nginx", "-c", str(main)]


def write_caddy(folder: Path, port: int, service: int) -> tuple[list[str], list[str]]:
    example = (ROOT / "deploy/Caddyfile").read_text()
    site = replaced(
        example,
        {
            "127.0.0.1:8000": f"127.0.0.1:{service}",
            r"(?m)^llm\.example\.org \{": f"https://{HOST}:{port} {{\n\ttls {CERTIFICATE} {CERTIFICATE}",
            r"(?m)^\{": "{\n\tadmin off",
        },
    )
    file = folder / "Caddyfile"
    file.write_text(site)
    options = ["--adapter", "caddyfile", "--config", str(file)]
    return ["caddy", "validate", *options], ["caddy", "run", *options]


PROXIES = [Proxy("nginx", write_nginx), Proxy("caddy", write_caddy)]


@dataclass(frozen=True)
class Service:
    """The API, and a proxy in front of it."""

    stack: Stack
    port: int

    def client(self) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=CERTIFICATE)
        return httpx.Client(base_url=f"https://{HOST}:{self.port}", headers=KEY, verify=trusted, timeout=scaled(20))

    def only_job(self, wait: int = 0) -> str:
        """Return the status of the service's only job, once it has one, after waiting for its end."""
        deadline = time.monotonic() + scaled(5)
        with self.stack.client(headers=KEY) as direct:
            while not (jobs := direct.get("/jobs").json()["data"]):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            status: str = direct.get(f"/jobs/{jobs[0]['id']}?wait={wait}").json()["status"]
            return status


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stack]:
    config = {"model_name": MODEL, "server": {"processes": 1, "threads": 16}, "auth": {"api_keys": ["a-key"]}}
    stack = Stack(tmp_path_factory.mktemp(MODEL), valkey.url, config)
    stack.start_api()
    try:
        stack.wait_alive()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module", params=PROXIES, ids=lambda proxy: proxy.program)
def running(request: pytest.FixtureRequest, api: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    proxy: Proxy = request.param
    if shutil.which(proxy.program) is None:
        pytest.skip(f"{proxy.program} is not installed")
    folder, port = tmp_path_factory.mktemp(proxy.program), free_port()
    _, command = proxy.write(folder, port, api.port)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HOME": str(folder)})
    try:
        deadline = time.monotonic() + scaled(10)
        while not is_open(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
        yield Service(api, port)
    finally:
        process.terminate()
        process.wait(scaled(10))


@pytest.fixture
def service(running: Service, redis_url: str) -> Service:
    """The running service over an empty database."""
    return running


@pytest.fixture
def player(service: Service, redis_url: str) -> Iterator[ScriptedWorker]:
    with working(redis_url, MODEL) as worker:
        yield worker


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.program)
def test_the_program_accepts_its_example(proxy: Proxy, tmp_path: Path) -> None:
    if shutil.which(proxy.program) is None:
        pytest.skip(f"{proxy.program} is not installed")
    check, _ = proxy.write(tmp_path, free_port(), free_port())
    ran = subprocess.run(check, capture_output=True, text=True, env=os.environ | {"HOME": str(tmp_path)}, check=False)
    assert ran.returncode == 0, ran.stderr


def test_keys_and_the_name_of_the_host_reach_the_service(service: Service) -> None:
    with service.client() as client:
        assert client.get("/jobs").status_code == 200
        assert client.get("/jobs", headers={"Authorization": "Bearer another"}).status_code == 401
        assert f"https://{HOST}:{service.port}/v1" in client.get("/chat/completions").text


def test_a_stream_arrives_piece_by_piece(service: Service, player: ScriptedWorker) -> None:
    player.play = play_of("a", pause, "b", Turn.succeed)
    for path, body in (
        ("/agenerate", {"prompt": "x", "stream": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
    ):
        with service.client() as client, client.stream("POST", path, json=body) as response:
            arrivals = [time.monotonic() for _ in response.iter_raw()]
        assert arrivals[-1] - arrivals[0] > 0.3, path


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_cancels_its_job(service: Service, player: ScriptedWorker, is_stream: bool) -> None:
    player.play = play_of(*["word "] * 20, pause, *["word "] * 20, Turn.wait_for_cancel)
    trusted = ssl.create_default_context(cafile=CERTIFICATE)
    connection = http.client.HTTPSConnection(HOST, service.port, context=trusted, timeout=scaled(10))
    path, body = ("/agenerate", {"prompt": "x", "stream": True}) if is_stream else ("/generate", {"prompt": "x"})
    connection.request("POST", path, json.dumps(body), KEY)
    if is_stream:
        assert connection.getresponse().status == 200
    assert service.only_job() in ("queued", "processing")
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert service.only_job(wait=20) == "canceled"


@pytest.mark.parametrize("path", ["/generate", "/v1/files"])
def test_a_body_over_the_limit_gets_413_as_json(service: Service, path: str) -> None:
    size = 5 * 2**20 if path == "/generate" else 34 * 2**20
    files = {"file": ("a.jsonl", b" " * size)} if path == "/v1/files" else None
    content = None if files else b" " * size
    with service.client() as client:
        response = client.post(path, content=content, files=files, data={"purpose": "batch"} if files else None)
    assert response.status_code == 413
    assert "body_too_large" in response.text and "json" in response.headers["Content-Type"]


def test_a_file_may_be_longer_than_another_body(service: Service) -> None:
    line = b'{"custom_id": "1", "body": "%s"}\n' % (b"x" * 10_000)
    with service.client() as client:
        response = client.post("/v1/files", files={"file": ("a.jsonl", line * 600)}, data={"purpose": "batch"})
    assert response.status_code == 200, response.text
