"""A batch of a thousand lines, while everything that serves it is killed in turn, at random moments."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from tests.engines.counting import voiceless
from tests.faults.accounting import Counts
from tests.faults.scenario import Scenario
from tests.faults.service import Running, Service, running_service
from tests.faults.settlement import unsettled
from tests.faults.waiting import until
from tests.waiting import scaled

LINES = 1000
MANY_LINES = 10_000
TOKENS = 8
WORKERS = 2
PAUSE_SECONDS = (0.2, 1.5)  # before and after each death
EXPECTED = "".join(f"{number} " for number in range(1, TOKENS + 1))
UNKNOWN_PARAMETER = 50  # one line in so many has a parameter that does not exist


def _everything_is_killed(folder: Path, lines: int, rounds: int) -> Counts:
    """Kill workers, API and Redis, once a round each, and start them again."""
    chance = random.Random()
    config: dict[str, Any] = {"worker": {"slots": 16}, "model_params": {"step_seconds": 0.01}}
    with running_service(folder, workers=WORKERS, **config) as service:
        batch_id = _create(service.urls[0], lines)
        kills = [_kill_worker, _kill_api, _kill_redis]
        hostages = 0
        for number in range(rounds):
            chance.shuffle(kills)
            for kill in kills:
                time.sleep(chance.uniform(*PAUSE_SECONDS))
                hostages = hostages or _until_lines_run(service)
                kill(service, number % WORKERS + 1, lambda: time.sleep(chance.uniform(*PAUSE_SECONDS)))
        ended = _end(service.urls[0], batch_id)
        answers = [
            answer for name in ("output_file_id", "error_file_id") for answer in _content(service.urls[0], ended[name])
        ]
        return replace(_count(ended, answers, service, lines), hostages=hostages)


def _until_lines_run(service: Service) -> int:
    """Return how many run: on a busy machine none does for most of the time between two turns of the driver."""
    running: list[Running] = []

    def some_run() -> bool:
        running.extend(service.running_jobs())
        return bool(running)

    until(some_run, "lines to run")
    return len(running)


def _kill_worker(service: Service, number: int, pause: Callable[[], None]) -> None:
    process = service.stack.processes.pop(f"worker-{number}")
    process.kill()
    process.wait()
    pause()
    service.start_worker(f"worker-{number}")


def _kill_api(service: Service, number: int, pause: Callable[[], None]) -> None:
    service.kill_api("api-1")
    pause()
    service.start_api("api-1")


def _kill_redis(service: Service, number: int, pause: Callable[[], None]) -> None:
    service.valkey.kill()
    pause()
    service.valkey.start()


def _create(url: str, count: int) -> str:
    lines = []
    for number in range(count):
        body: dict[str, Any] = {"prompt": f"line {number}", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        if number % UNKNOWN_PARAMETER == 0:
            body["temprature"] = 0
        lines.append({"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body})
    content = "\n".join(map(json.dumps, lines)).encode()
    with httpx.Client(base_url=url, timeout=scaled(30)) as http:
        file = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", content)}).json()
        batch = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "1h"}
        batch_id: str = http.post("/v1/batches", json=batch).json()["id"]
    return batch_id


def _end(url: str, batch_id: str) -> dict[str, Any]:
    ended: dict[str, Any] = {}

    def has_ended() -> bool:
        answer = _read(url, f"/v1/batches/{batch_id}")
        if answer is not None and answer.json()["status"] not in ("in_progress", "finalizing"):
            ended.update(answer.json())
        return bool(ended)

    until(has_ended, "the batch to end")
    return ended


def _content(url: str, file_id: str) -> list[dict[str, Any]]:
    answers: list[httpx.Response] = []

    def is_read() -> bool:
        answer = _read(url, f"/v1/files/{file_id}/content")
        answers.extend([answer] if answer is not None else [])
        return bool(answers)

    until(is_read, "the content of a file")
    return list(map(json.loads, answers[0].text.splitlines()))


def _read(url: str, path: str) -> httpx.Response | None:
    """Return the answer, or None while the service cannot answer."""
    try:
        answer = httpx.get(f"{url}{path}", timeout=scaled(10))
    except httpx.TransportError:
        return None
    assert answer.status_code in (200, 503), answer.text
    return answer if answer.status_code == 200 else None


def _count(batch: dict[str, Any], answers: list[dict[str, Any]], service: Service, lines: int) -> Counts:
    seen = Counter(answer["custom_id"] for answer in answers)
    wrong = [answer for answer in answers if not _is_right(answer)]
    counts, unsettled_jobs = batch["request_counts"], unsettled(service)
    return Counts(
        accepted=counts["total"],
        succeeded=counts["completed"],
        failed=counts["failed"],
        lost=len({str(number) for number in range(lines)} - seen.keys()),
        duplicated=seen.total() - len(seen),
        wrong=len(wrong) + (batch["status"] != "completed"),
        ended_processes=service.ended_processes(),
        unsettled=len(unsettled_jobs),
        notes=(batch["status"], *unsettled_jobs, *map(str, wrong)),
    )


def _is_right(answer: dict[str, Any]) -> bool:
    response = answer["response"]
    if int(answer["custom_id"]) % UNKNOWN_PARAMETER == 0:
        return bool(response["status_code"] == 400 and response["body"]["error"]["param"] == "temprature")
    if response["status_code"] != 200:
        return False
    (choice,) = response["body"]["choices"]
    return voiceless(choice["text"]) == EXPECTED and response["body"]["usage"]["completion_tokens"] == TOKENS


def _scenario(name: str, lines: int, rounds: int) -> Scenario:
    return Scenario(
        name=name,
        fault=f"kill -9 workers, API and Redis under a batch of {lines}",
        run=lambda folder: _everything_is_killed(folder, lines, rounds),
        exactly={
            "accepted": lines,
            "succeeded": lines - lines // UNKNOWN_PARAMETER,
            "failed": lines // UNKNOWN_PARAMETER,
        },
        at_least={"hostages": 1},
    )


EVERYTHING_KILLED = _scenario("batch", LINES, WORKERS)
MANY_SETTLED = _scenario("ledger", MANY_LINES, 5 * WORKERS)
