"""Batches over a real Valkey and a scripted worker; the tests call the driver themselves."""

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.batches.driver import BatchDriver
from app.api.request_context import services_of
from tests.app.api.scripted_worker import ScriptedWorker
from tests.waiting import scaled

COMPLETIONS = "/v1/completions"


def line(custom_id: str, *, url: str = COMPLETIONS, method: str = "POST", **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": method, "url": url, "body": {"prompt": custom_id, **body}})


@dataclass
class Batches:
    """A client of `/v1/batches`, and a process that drives them."""

    app: Flask
    client: FlaskClient
    driver: BatchDriver

    def upload(self, *lines: str, **form: Any) -> Any:
        file = (io.BytesIO("\n".join(lines).encode()), "requests.jsonl")
        answer = self.client.post("/v1/files", data={"purpose": "batch", "file": file, **form})
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def create(self, *lines: str, **body: Any) -> Any:
        batch = {
            "input_file_id": self.upload(*lines)["id"],
            "endpoint": COMPLETIONS,
            "completion_window": "24h",
            **body,
        }
        answer = self.client.post("/v1/batches", json=batch)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def read(self, batch: Any) -> Any:
        return self.client.get(f"/v1/batches/{batch['id']}").get_json()

    def drive(self, until: Callable[[], bool], *drivers: BatchDriver) -> None:
        deadline = time.monotonic() + scaled(60)
        while not until():
            assert time.monotonic() < deadline, "the batch does not reach that state in time"
            for driver in drivers or (self.driver,):
                driver.turn()
            time.sleep(0.01)

    def finish(self, batch: Any, *drivers: BatchDriver) -> Any:
        """Drive the batch to its end and return it."""
        self.drive(lambda: self.read(batch)["status"] not in ("in_progress", "cancelling", "finalizing"), *drivers)
        return self.read(batch)

    def content(self, file_id: str | None) -> dict[str, Any]:
        """Return the lines of an output by custom id; no id may occur twice."""
        if file_id is None:
            return {}
        lines = list(map(json.loads, self.client.get(f"/v1/files/{file_id}/content").text.splitlines()))
        by_id = {line["custom_id"]: line for line in lines}
        assert len(by_id) == len(lines)
        return by_id


def make_driver(app: Flask) -> BatchDriver:
    services = services_of(app)
    return BatchDriver(services.batches, services.files, services.jobs)


@pytest.fixture
def batches(app: Flask, client: FlaskClient, worker: ScriptedWorker) -> Iterator[Batches]:
    yield Batches(app, client, make_driver(app))
