"""A batch from its file to its answers."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import redis

from app.access.api_key import ApiKey
from app.access.key_store import KeyStore
from app.api.batches import driver as driving
from app.api.batches import lines
from app.api.batches.driver import BatchDriver
from app.api.batches.files import FileStore
from app.api.job_service import JobService
from app.api.openai.plan import RequestPlan
from app.api.request_context import services_of
from app.api.schemas.openai.completions import CompletionBody
from app.config.hours import Hours
from app.config.settings import Config
from app.jobs import keys
from app.jobs.job import ANONYMOUS, Job, JobRequest, Priority, Status
from app.jobs.principal import Principal
from app.jobs.redis_client import RedisClient
from app.jobs.store import JobStore
from tests.app.api.batches.conftest import COMPLETIONS, Batches, line, make_driver
from tests.app.api.conftest import MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker, Turn, play_of
from tests.waiting import scaled


@pytest.fixture(autouse=True)
def fresh_estimate(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test read the slots of its own worker."""
    monkeypatch.setattr("app.api.queue_estimate.FRESH_SECONDS", 0.0)


def test_each_line_is_answered_as_a_request_of_its_own_would_be(batches: Batches, worker: ScriptedWorker) -> None:
    batch = batches.create(line("one"), "", line("two", n=2, seed=1), line("three"), metadata={"for": "me"})
    assert (batch["status"], batch["request_counts"]) == ("in_progress", {"total": 3, "completed": 0, "failed": 0})
    done = batches.finish(batch)
    assert (done["status"], done["metadata"], done["error_file_id"]) == ("completed", {"for": "me"}, None)
    assert done["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    output = batches.content(done["output_file_id"])
    assert set(output) == {"one", "two", "three"}
    body = output["two"]["response"]["body"]
    assert (output["two"]["response"]["status_code"], body["object"]) == (200, "text_completion")
    assert [choice["text"] for choice in body["choices"]] == ["Hello world"] * 2
    assert (done["usage"]["input_tokens"], done["usage"]["output_tokens"]) == (9, 8)
    assert {turn.request.priority for turn in worker.turns} == {Priority.LOW}


def test_jobs_of_a_batch_are_for_the_principal_that_created_it(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    principal = Principal(owner=ANONYMOUS, tenant="lab", key_name="Ada's", weight=2.5, label="thesis")
    admitted: list[Principal] = []
    admit = JobStore.admit

    def record(store: JobStore, request: JobRequest, principal: Principal, *args: Any, **named: Any) -> Job:
        admitted.append(principal)
        return admit(store, request, principal, *args, **named)

    monkeypatch.setattr(JobStore, "admit", record)
    monkeypatch.setattr("app.api.routes.openai_batches.current_principal", lambda: principal)
    batch = batches.create(line("one"))
    assert batches.finish(batch)["status"] == "completed"
    assert admitted == [principal]


def test_a_line_names_the_keywords_that_its_output_need_not_follow(batches: Batches, worker: ScriptedWorker) -> None:
    schema = {"type": "array", "uniqueItems": True}
    done = batches.finish(batches.create(line("held", json_schema={}), line("not held", json_schema=schema)))
    output = batches.content(done["output_file_id"])
    assert output["not held"]["response"]["headers"] == {"Unenforced-Keywords": "json_schema.uniqueItems"}
    assert "headers" not in output["held"]["response"]


def test_nothing_is_left_of_a_batch_but_what_it_wrote(batches: Batches, redis_client: RedisClient) -> None:
    batch = batches.create(line("one"), line("bad", n=-1))
    assert redis_client.execute_command("TTL", keys.file_lines(batch["input_file_id"])) == -1, "it is being read"
    done = batches.finish(batch)
    assert redis_client.exists(keys.unfinished(MODEL), keys.batch_open(done["id"])) == 0
    assert batches.client.get("/jobs").get_json()["data"] == []
    for name in ("input_file_id", "output_file_id", "error_file_id"):
        assert redis_client.execute_command("TTL", keys.file(done[name])) > 0
        assert redis_client.execute_command("TTL", keys.file_lines(done[name])) > 0
    assert redis_client.execute_command("TTL", keys.batch(done["id"])) > 0
    assert batches.client.delete(f"/v1/files/{done['input_file_id']}").status_code == 200


def test_an_error_in_a_line_is_reported_under_its_custom_id(batches: Batches, worker: ScriptedWorker) -> None:
    def play(turn: Turn) -> None:
        if turn.request.prompt == "refused":
            turn.fail("prompt_too_long", "too long", {"prompt": ["too long"]})
        else:
            play_of("fine", Turn.succeed)(turn)

    worker.play = play
    lines = [
        line("fine"),
        line("refused"),
        line("temperature", temperature=-1),
        line("model", model="gpt-4"),
        line("stream", stream=True),
        line("url", url="/v1/embeddings"),
        line("method", method="GET"),
        '{"custom_id": "bodiless", "method": "POST", "url": "/v1/completions"}',
        line("long", suffix="x" * 100_000),
    ]
    done = batches.finish(batches.create(*lines))
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 9, "completed": 1, "failed": 8})
    assert set(batches.content(done["output_file_id"])) == {"fine"}
    errors = {
        custom_id: (entry["response"]["status_code"], entry["response"]["body"]["error"]["param"])
        for custom_id, entry in batches.content(done["error_file_id"]).items()
    }
    assert errors == {
        "refused": (400, "prompt"),
        "temperature": (400, "temperature"),
        "model": (404, "model"),
        "stream": (400, "stream"),
        "url": (400, "url"),
        "method": (400, "method"),
        "bodiless": (400, "body"),
        "long": (413, None),
    }


def test_a_quarter_of_the_slots_is_left_for_other_requests(batches: Batches, worker: ScriptedWorker) -> None:
    gate = threading.Event()
    worker.play = play_of(gate, "done", Turn.succeed)
    batch = batches.create(*(line(str(number), n=2) for number in range(6)))
    batches.drive(lambda: len(worker.turns) == 3)  # of 4
    for _ in range(20):
        batches.driver.turn()
    assert len(batches.client.get("/jobs").get_json()["data"]) == 3
    gate.set()
    assert batches.finish(batch)["request_counts"]["completed"] == 6


def test_three_processes_that_drive_at_once_answer_no_line_twice(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.play = play_of(Turn.succeed)
    drivers = [make_driver(batches.app), make_driver(batches.app)]
    monkeypatch.setattr(driving.BatchStore, "lock_driver", lambda *_: True)
    batch = batches.create(*(line(str(number)) for number in range(40)))
    stop = threading.Event()

    def drive(driver: BatchDriver) -> None:
        while not stop.is_set():
            driver.turn()

    threads = [threading.Thread(target=drive, args=[driver]) for driver in drivers]
    for thread in threads:
        thread.start()
    try:
        done = batches.finish(batch)
    finally:
        stop.set()
        for thread in threads:
            thread.join(scaled(10))
    assert done["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert len(batches.content(done["output_file_id"])) == 40


class Killed(BaseException):
    """A driver died."""


@dataclass
class DiesAtFirst:
    """A step that kills its driver twice: the first time before it is done, the second time after."""

    step: Callable[..., Any]
    deaths: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.deaths == 0:
            self.deaths += 1
            raise Killed
        result = self.step(*args, **kwargs)
        if self.deaths == 1:
            self.deaths += 1
            raise Killed
        return result


def test_a_driver_that_died_at_any_step_is_followed_by_one_that_continues(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.play = play_of("x", Turn.succeed)
    monkeypatch.setattr(driving.BatchStore, "lock_driver", lambda *_: True)
    driver = batches.driver
    steps: list[DiesAtFirst] = []
    for store, methods in (
        (driver._batches, ("open", "record_results", "finish")),
        (driver._jobs.store, ("admit", "delete")),
    ):
        for method in methods:
            steps.append(DiesAtFirst(getattr(store, method)))
            monkeypatch.setattr(store, method, steps[-1])
    names = {str(number) for number in range(12)}  # three of them are submitted at once
    batch = batches.create(line("bad", n=-1), *map(line, names))
    done: Any = None
    while done is None:
        with contextlib.suppress(Killed):
            done = batches.finish(batch, make_driver(batches.app))
    assert [step.deaths for step in steps] == [2] * 5
    assert done["request_counts"] == {"total": 13, "completed": 12, "failed": 1}
    assert set(batches.content(done["output_file_id"])) == names
    assert set(batches.content(done["error_file_id"])) == {"bad"}


def test_a_result_that_vanished_before_it_was_written_down_is_made_again(
    batches: Batches, worker: ScriptedWorker
) -> None:
    batch = batches.create(line("one"))
    batches.drive(lambda: len(worker.turns) == 1)
    (job,) = batches.client.get("/jobs").get_json()["data"]
    batches.client.get(f"/jobs/{job['id']}?wait=5")
    assert batches.client.delete(f"/jobs/{job['id']}").status_code == 204
    assert batches.finish(batch)["request_counts"]["completed"] == 1
    assert len(worker.turns) == 2


def test_canceling_keeps_the_answers_and_reports_the_other_lines(batches: Batches, worker: ScriptedWorker) -> None:
    def play(turn: Turn) -> None:
        play_of("quick", Turn.succeed)(turn) if turn.request.prompt == "quick" else turn.wait_for_cancel()

    worker.play = play
    batch = batches.create(line("quick"), *(line(f"slow {number}") for number in range(9)))
    batches.drive(lambda: len(worker.turns) == 4)
    canceled = batches.client.post(f"/v1/batches/{batch['id']}/cancel").get_json()
    assert canceled["status"] == "cancelling" and canceled["cancelling_at"]
    done = batches.finish(batch)
    assert (done["status"], done["request_counts"]) == ("cancelled", {"total": 10, "completed": 1, "failed": 9})
    assert done["cancelled_at"]
    errors = batches.content(done["error_file_id"])
    assert {(entry["response"], entry["error"]["code"]) for entry in errors.values()} == {(None, "batch_cancelled")}
    assert {turn.worker.store.read(turn.claim.job_id).status for turn in worker.turns[4:]} <= {Status.CANCELED}
    assert batches.client.post(f"/v1/batches/{batch['id']}/cancel").status_code == 409


def test_lines_without_an_answer_within_the_window_are_reported_as_expired(
    batches: Batches, worker: ScriptedWorker
) -> None:
    worker.play = Turn.wait_for_cancel
    done = batches.finish(batches.create(line("one"), line("two"), completion_window="1s"))
    assert (done["status"], done["request_counts"]["failed"]) == ("expired", 2)
    errors = batches.content(done["error_file_id"])
    assert {entry["error"]["code"] for entry in errors.values()} == {"batch_expired"}


def test_a_batch_whose_results_fill_the_storage_ends_and_says_why(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.play = play_of("x" * 30_000, Turn.succeed)
    files = FileStore(services_of(batches.app).redis, max_bytes_per_owner=90_000)
    monkeypatch.setattr(driving, "STORED_SECONDS", 0.0)
    driver = BatchDriver(services_of(batches.app).batches, files, services_of(batches.app).jobs)
    done = batches.finish(batches.create(*(line(str(number)) for number in range(30))), driver)
    assert done["status"] == "failed"
    answered, errors = batches.content(done["output_file_id"]), batches.content(done["error_file_id"])
    assert 3 <= len(answered) < 10 and len(answered) + len(errors) == 30
    assert {entry["error"]["code"] for entry in errors.values()} == {"storage_full"}


def test_a_batch_waits_while_no_worker_serves(batches: Batches, worker: ScriptedWorker) -> None:
    worker.redis.delete(keys.worker(worker.name), keys.alive(MODEL))
    batch = batches.create(line("one"))
    for _ in range(3):
        assert batches.driver.turn()
    assert batches.read(batch)["request_counts"]["completed"] == 0
    worker.announce()
    assert batches.finish(batch)["request_counts"]["completed"] == 1


def test_a_full_queue_keeps_lines_until_there_is_room(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = batches.driver._jobs.store
    monkeypatch.setattr(store, "_max_queued", 0)
    batch = batches.create(line("one"), line("two"))
    for _ in range(3):
        batches.driver.turn()
    assert worker.turns == []
    monkeypatch.setattr(store, "_max_queued", 50)
    assert batches.finish(batch)["request_counts"]["completed"] == 2


def test_a_line_that_fails_by_our_fault_does_not_hold_up_the_others(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, real = lines.ENDPOINTS[COMPLETIONS]

    def plan(body: CompletionBody, jobs: JobService, principal: Principal) -> RequestPlan:
        if body.prompts == ["planned wrong"]:
            raise AssertionError
        planned = real(body, jobs, principal)
        return replace(planned, make_body=lambda _: {}[0]) if body.prompts == ["answered wrong"] else planned

    monkeypatch.setitem(cast(dict[str, Any], lines.ENDPOINTS), COMPLETIONS, (schema, plan))
    done = batches.finish(batches.create(line("planned wrong"), line("answered wrong"), line("fine")))
    assert done["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    errors = batches.content(done["error_file_id"]).values()
    assert [entry["response"]["status_code"] for entry in errors] == [500, 500]


def test_a_line_is_not_refused_because_redis_is_away(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, real = lines.ENDPOINTS[COMPLETIONS]
    tries: list[bool] = []

    def plan(body: CompletionBody, jobs: JobService, principal: Principal) -> RequestPlan:
        tries.append(True)
        if len(tries) == 1:
            raise redis.ConnectionError
        return real(body, jobs, principal)

    monkeypatch.setitem(cast(dict[str, Any], lines.ENDPOINTS), COMPLETIONS, (schema, plan))
    batch = batches.create(line("one"))
    with pytest.raises(redis.ConnectionError):
        batches.driver.turn()
    assert batches.finish(batch)["request_counts"]["completed"] == 1


def test_a_response_of_a_batch_continues_another(batches: Batches, worker: ScriptedWorker) -> None:
    first = batches.client.post("/v1/responses", json={"input": "Hello"}).get_json()
    body = {"input": "And?", "previous_response_id": first["id"]}
    request_line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": body})
    done = batches.finish(batches.create(request_line, endpoint="/v1/responses"))
    (entry,) = batches.content(done["output_file_id"]).values()
    assert entry["response"]["body"]["previous_response_id"] == first["id"]
    assert [message["content"] for message in worker.turns[-1].request.chat.messages] == [
        "Hello",
        "Hello world",
        "And?",
    ]


def test_a_redis_without_memory_costs_no_line(
    batches: Batches, worker: ScriptedWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving.BatchStore, "lock_driver", lambda *_: True)
    gate = threading.Event()
    worker.play = play_of(gate, "done", Turn.succeed)
    batch = batches.create(*(line(str(number)) for number in range(6)))
    batches.drive(lambda: len(worker.turns) == 3)  # of 4 slots
    gate.set()
    for turn in worker.turns:
        batches.client.get(f"/jobs/{turn.claim.job_id}?wait=5")
    with redis.Redis.from_url(redis_url) as raw:
        raw.config_set("maxmemory", 1)
        for _ in range(3):
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                batches.driver.turn()
        raw.config_set("maxmemory", 0)
    assert batches.read(batch)["request_counts"]["completed"] == 3
    done = batches.finish(batch)
    assert done["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
    assert len(batches.content(done["output_file_id"])) == 6


def test_a_line_that_is_not_to_be_stored_is_answered(batches: Batches, worker: ScriptedWorker) -> None:
    batch = batches.finish(batches.create(line("a", store=False)))
    assert batches.content(batch["output_file_id"])["a"]["response"]["status_code"] == 200


def statuses(batches: Batches, *created: Any) -> list[tuple[str, int]]:
    """Return the status of each batch, and how many of its lines have been opened."""
    found = [services_of(batches.app).batches.find(batch["id"]) for batch in created]
    return [(batch.status, batch.next_line) for batch in found if batch is not None]


def test_a_batch_for_later_waits_while_others_run_and_its_window_begins_then(
    batches: Batches, redis_client: RedisClient
) -> None:
    not_before = int(time.time()) + 7200
    later = batches.create(line("later"), not_before=not_before)
    delayed = batches.create(line("delayed"), not_before="+60", completion_window="1h")
    assert (later["not_before"], later["waits_until"], later["status"]) == (not_before, not_before, "in_progress")
    assert later["expires_at"] == not_before + 86_400
    assert 59 <= delayed["not_before"] - delayed["created_at"] <= 61
    assert delayed["expires_at"] - delayed["not_before"] == 3600
    assert batches.driver.turn() is False, "there is nothing to hurry for"
    now = batches.create(line("now"))
    assert batches.finish(now)["status"] == "completed"
    assert statuses(batches, later, delayed) == [("in_progress", 0), ("in_progress", 0)]
    redis_client.execute_command("HSET", keys.batch(later["id"]), "not_before", str(time.time() - 1))
    done = batches.finish(later)
    assert (done["status"], done["waits_until"]) == ("completed", None)


def test_a_batch_for_later_can_be_cancelled(batches: Batches) -> None:
    batch = batches.create(line("one"), not_before="+3600")
    assert batches.client.post(f"/v1/batches/{batch['id']}/cancel").status_code == 200
    assert batches.finish(batch)["status"] == "cancelled"


def test_outside_of_its_hours_no_line_is_submitted_and_what_runs_goes_on(
    batches: Batches, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, clock = threading.Event(), [True]

    def play(turn: Turn) -> None:
        assert go_on.wait(scaled(20))
        turn.succeed()

    monkeypatch.setattr(Hours, "include", lambda self, moment: clock[0])
    driver = make_driver(batches.app)
    monkeypatch.setattr(driver, "_hours", Hours.parse("20:00-06:00", "Europe/Berlin"))
    worker.play = play
    batch = batches.create(*(line(f"line {number}") for number in range(8)))
    batches.drive(lambda: len(worker.turns) >= 1, driver)
    clock[0] = False
    ((_, opened),) = statuses(batches, batch)
    go_on.set()
    batches.drive(lambda: batches.read(batch)["request_counts"]["completed"] == opened, driver)
    for _ in range(3):
        assert driver.turn() is False
    assert statuses(batches, batch) == [("in_progress", opened)] and opened < 8
    clock[0] = True
    assert batches.finish(batch, driver)["request_counts"]["completed"] == 8


def test_a_line_has_no_time_of_its_own(batches: Batches) -> None:
    done = batches.finish(batches.create(line("one", not_before="+5")))
    (error,) = batches.content(done["error_file_id"]).values()
    assert error["response"]["body"]["error"]["param"] == "not_before"
    assert "send it with the batch" in error["response"]["body"]["error"]["message"]


def test_lines_are_requests_of_the_key_that_made_the_batch(
    make_app: MakeApp, config: Config, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access.authentication.CACHED_SECONDS", 0.0)
    app = make_app(config)
    key, secret = KeyStore(worker.redis).create(
        ApiKey(id="", name="one", digest="", group="team", models=(MODEL,), max_priority=Priority.NORMAL)
    )
    batches = Batches(app, app.test_client(), make_driver(app))
    batches.client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    kept: list[Principal] = []

    def play(turn: Turn) -> None:
        kept.append(Principal.from_fields(worker.redis.hgetall(keys.job(turn.claim.job_id))))
        turn.succeed()

    worker.play = play
    batch = batches.create(line("one", user="u1"), line("two"), line("high", priority="high"))
    done = batches.finish(batch)
    assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    errors = batches.content(done["error_file_id"])
    assert errors["high"]["response"]["status_code"] == 403
    assert errors["high"]["response"]["body"]["error"]["param"] == "priority"
    assert sorted(one.label for one in kept) == ["", "u1"]
    assert {(one.owner, one.tenant, one.key_name) for one in kept} == {(key.id, "team", "one")}
