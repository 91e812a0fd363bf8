"""The HTTP API of a service in containers, by the standard library."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.containers.docker import Failure

READY_SECONDS = 180
_ANSWER_SECONDS = 120
_TOKENS = 200
_DELTAS_BEFORE_THE_KILL = 5


@dataclass(frozen=True, slots=True)
class Service:
    """What answers at a published port of this machine."""

    port: int

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the JSON of the response."""
        with closing(self._connection()) as connection:
            self._send(connection, method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")

    def wait_ready(self) -> None:
        """Raises Failure with what /readyz says in the end."""
        deadline, last = time.monotonic() + READY_SECONDS, "no response"
        while time.monotonic() < deadline:
            try:
                status, body = self.request("GET", "/readyz")
            except (OSError, http.client.HTTPException):
                status, body = 0, "no response"
            if status == http.client.OK:
                return
            last = str(body)
            time.sleep(0.5)
        raise Failure(f"not ready after {READY_SECONDS} s: {last}")

    def busy_container(self) -> str:
        """Return the host name of the worker that runs a job: the beginning of its container's id."""
        _, body = self.request("GET", "/readyz")
        busy = [worker["id"] for worker in body["workers"] if worker["running"]]
        if len(busy) != 1:
            raise Failure(f"one worker should run the job: {body}")
        return str(busy[0].partition("-")[0])

    def generate(self, prompt: str, tokens: int = 8) -> str:
        body = {"prompt": prompt, "params": {"max_tokens": tokens, "temperature": 0}}
        status, text = self.request("POST", "/generate", body)
        if status != http.client.OK or not isinstance(text, str) or not text:
            raise Failure(f"/generate returned {status}: {text}")
        return text

    def submit(self, prompt: str, tokens: int) -> str:
        """Return the id of a job that runs without a client."""
        params = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        status, job = self.request("POST", "/agenerate", {"prompt": prompt, "params": params})
        if status != http.client.ACCEPTED:
            raise Failure(f"/agenerate returned {status}: {job}")
        return str(job["id"])

    def job(self, job_id: str) -> Any:
        status, job = self.request("GET", f"/jobs/{job_id}")
        if status != http.client.OK:
            raise Failure(f"job {job_id} is lost: {status} {job}")
        return job

    def wait_succeeded(self, job_id: str, tokens: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while (job := self.job(job_id))["status"] in ("queued", "processing"):
            if time.monotonic() > deadline:
                raise Failure(f"job {job_id} is still {job['status']}")
            time.sleep(0.3)
        if job["status"] != "succeeded" or job["usage"]["completion_tokens"] != tokens:
            raise Failure(f"job {job_id} ended as {job['status']}: {job['usage']} {job['error']}")

    def stream_through(self, kill: Callable[[], None]) -> str:
        """Follow a job, call `kill` in the middle, and return in words how the stream went on.

        Raises:
            Failure: the stream ended early, or its text is not that of the job's record.
        """
        job_id, texts, attempts, longest, last = self.submit("Once upon a time", _TOKENS), [], 0, 0.0, time.monotonic()
        for name, data in self._events(f"/jobs/{job_id}/events"):
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if name == "started":
                attempts = data["attempt"]
            elif name == "delta":
                texts.append(data["text"])
                if len(texts) == _DELTAS_BEFORE_THE_KILL:
                    kill()
                    last = time.monotonic()
        self.wait_succeeded(job_id, _TOKENS)
        if attempts < 2:
            raise Failure(f"the kill came too late: attempt {attempts} of the job wrote all {len(texts)} pieces")
        if "".join(texts) != self.job(job_id)["output"]["text"]:
            raise Failure("the text of the stream is not the text of the job")
        return f"{_TOKENS} tokens without a gap in {len(texts)} pieces, the longest pause {longest:.1f} s"

    def _events(self, path: str) -> Iterator[tuple[str, Any]]:
        with closing(self._connection()) as connection:
            self._send(connection, "GET", path, None)
            name = ""
            for line in connection.getresponse():
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_SECONDS)

    @staticmethod
    def _send(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> None:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
