"""Metrics and access lines of requests under gunicorn, with two processes."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.app.api.scripted_worker import working
from tests.stack import Stack
from tests.valkey import Valkey
from tests.waiting import until

MODEL = "logged"
SECRET = "what nobody may read"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp(MODEL)
    config = {"model_name": MODEL, "server": {"processes": 2, "threads": 16}, "log": {"format": "json"}}
    stack = Stack(folder, valkey.url, config)
    stack.start_api()
    try:
        stack.wait_alive()
        ready = httpx.get(f"{stack.url}/readyz", headers={"X-Request-ID": "probe"})
        assert ready.status_code == 503, "no worker has started yet"
        yield stack
    finally:
        stack.stop()


def lines(api: Stack, logger: str = "app.access") -> list[dict[str, Any]]:
    written = [json.loads(line) for line in api.log("api").splitlines()]
    return [line for line in written if line["logger"] == logger]


def line_of(api: Stack, request_id: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [line for line in lines(api) if line["request"] == request_id]

    until(found, what="the line, which is written after the response")
    (line,) = found()
    return line


def requests(api: Stack) -> dict[tuple[str, str, str], float]:
    """Return how many requests each method, route and status had."""
    families = text_string_to_metric_families(httpx.get(f"{api.url}/metrics").text)
    return {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "llm_api_http_request_duration_seconds_count"
    }


def test_a_request_has_one_line_with_its_job_and_nothing_that_it_says(api: Stack, redis_url: str) -> None:
    with working(redis_url, MODEL) as worker, api.client(headers={"X-Request-ID": "first"}) as client:
        response = client.post("/generate", json={"prompt": SECRET}, params={"p": SECRET})
    line = line_of(api, "first")
    assert (line["level"], line["message"]) == ("info", "POST /generate 200")
    assert line["job"] == worker.turns[0].claim.job_id
    assert line["bytes"] == len(response.content)
    assert 0 < line["ms"] < 60_000
    assert "key" not in line
    for text in (SECRET, "Hello"):
        assert text not in api.log("api")


def test_a_stream_has_its_line_at_its_end_with_all_its_bytes(api: Stack, redis_url: str) -> None:
    with working(redis_url, MODEL), api.client(headers={"X-Request-ID": "stream"}) as client:
        streamed = client.post("/agenerate", json={"prompt": "x", "stream": True}).content
    assert line_of(api, "stream")["bytes"] == len(streamed) > 0


def test_errors_have_lines_and_probes_have_none(api: Stack) -> None:
    with api.client(headers={"X-Request-ID": "probe"}) as client:
        client.get("/healthz")
        client.get("/metrics")
    with api.client(headers={"X-Request-ID": "wrong"}) as client:
        client.get(f"/nowhere/{SECRET}")
    assert line_of(api, "wrong")["message"] == "GET - 404"
    assert "probe" not in {line["request"] for line in lines(api)}


def test_the_files_of_the_page_have_no_lines_unless_they_are_missing(api: Stack) -> None:
    with api.client(headers={"X-Request-ID": "page file"}) as client:
        assert client.get("/web/page.css").status_code == 200
        assert client.get("/static/docs.js").status_code == 200
    with api.client(headers={"X-Request-ID": "missing"}) as client:
        client.get("/web/nothing.js")
    with api.client(headers={"X-Request-ID": "page"}) as client:
        client.get("/")
    assert line_of(api, "missing")["message"] == "GET /web/{name} 404"
    assert line_of(api, "page")["message"] == "GET / 200"
    assert "page file" not in {line["request"] for line in lines(api)}


def test_requests_of_all_processes_are_counted_also_those_of_one_that_was_killed(api: Stack) -> None:
    def count() -> float:
        return requests(api).get(("GET", "/check", "200"), 0)

    master = psutil.Process(api.processes["api"].pid)
    before, pids = count(), {child.pid for child in master.children()}
    for _ in range(40):
        httpx.get(f"{api.url}/check")
    until(lambda: count() == before + 40, what="all to be counted")
    os.kill(min(pids), signal.SIGKILL)
    until(lambda: len({child.pid for child in master.children()} - pids) == 1, what="a new process")
    assert count() == before + 40
    httpx.get(f"{api.url}/check")
    until(lambda: count() == before + 41)


def test_methods_and_paths_of_a_clients_invention_make_no_new_series(api: Stack) -> None:
    for number in range(3):
        httpx.request(f"BREW{number}", f"{api.url}/pot/{number}")
    until(lambda: requests(api).get(("_OTHER", "", "404"), 0) + requests(api).get(("_OTHER", "", "405"), 0) == 3)
    assert not [key for key in requests(api) if "BREW" in key[0] or "pot" in key[1]]


def test_every_line_of_the_log_is_an_object_also_gunicorns_own(api: Stack) -> None:
    assert any("listening on" in line["message"] for line in lines(api, "app.server"))
    os.kill(api.processes["api"].pid, signal.SIGTTIN)  # one process more, which gunicorn logs at its own level
    assert all(json.loads(line)["time"] for line in api.log("api").splitlines())


def test_the_folder_of_the_metrics_goes_with_gunicorn(api: Stack) -> None:
    children = psutil.Process(api.processes["api"].pid).children()
    folders = {
        file.path.rpartition("/")[0]
        for child in children
        for file in child.memory_maps()
        if "llm-api-metrics" in file.path
    }
    (folder,) = folders
    api.stop()
    assert not Path(folder).exists()
