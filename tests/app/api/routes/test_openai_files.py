"""`/v1/files` and `/v1/batches`: what they accept, refuse, list, delete. Running batches: `tests/app/api/batches`."""

import io
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.routes.openai_files import MAX_FILE_LINES
from app.config.settings import AuthConfig, Config, FilesConfig
from app.jobs import keys
from app.jobs.redis_client import RedisClient
from tests.app.api.conftest import KEYS, MODEL, MakeApp
from tests.waiting import scaled

LINE = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Hello"}})


def send(client: FlaskClient, content: bytes, headers: dict[str, str] | None = None, **form: Any) -> Any:
    file = (io.BytesIO(content), "requests.jsonl")
    return client.post("/v1/files", data={"purpose": "batch", "file": file, **form}, headers=headers)


def create(client: FlaskClient, content: bytes, **body: Any) -> Any:
    file_id = send(client, content).get_json()["id"]
    batch = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h", **body}
    return client.post("/v1/batches", json=batch)


@pytest.mark.parametrize("content", [b"", b"\n", b"a\r\nb", f"{LINE}\n".encode() * 1200, "Grüße\n日本\n".encode()])
def test_a_file_is_given_back_as_it_was_sent(client: FlaskClient, content: bytes) -> None:
    kept = send(client, content).get_json()
    assert (kept["bytes"], kept["filename"], kept["purpose"]) == (len(content), "requests.jsonl", "batch")
    assert client.get(f"/v1/files/{kept['id']}").get_json() == kept
    answer = client.get(f"/v1/files/{kept['id']}/content")
    assert (answer.data, answer.content_length) == (content, len(content))


def test_a_file_is_kept_for_the_requested_time_but_no_longer_than_the_server_allows(client: FlaskClient) -> None:
    seconds = [{"expires_after[anchor]": "created_at", "expires_after[seconds]": str(n)} for n in (60, 2_592_000)]
    files = [send(client, b"x", **form).get_json() for form in seconds]
    assert [file["expires_at"] - file["created_at"] for file in files] == [60, FilesConfig().ttl]


def test_a_deleted_file_is_gone(client: FlaskClient) -> None:
    file_id = send(client, b"x").get_json()["id"]
    assert client.delete(f"/v1/files/{file_id}").get_json() == {"id": file_id, "object": "file", "deleted": True}
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content", "/v1/files/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "file_not_found")
    assert client.get("/v1/files").get_json()["data"] == []


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "fine-tune", "file": (io.BytesIO(b"x"), "x")}, "purpose"),
        ({"purpose": "batch"}, "file"),
        ({"purpose": "batch", "file": "no file"}, "file"),
        ({"purpose": "batch", "file": (io.BytesIO(b"fine\n\xff"), "x")}, "file"),
        ({"purpose": "batch", "file": (io.BytesIO(b"x"), "x"), "name": "x"}, "name"),
        (
            {"purpose": "batch", "file": (io.BytesIO(b"x"), "x"), "expires_after[seconds]": "9"},
            "expires_after[seconds]",
        ),
    ],
)
def test_a_wrong_form_is_refused_by_the_name_of_its_part(client: FlaskClient, form: Any, param: str) -> None:
    answer = client.post("/v1/files", data=form, content_type="multipart/form-data")
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)


def test_a_file_may_be_longer_than_a_body_but_not_than_the_server_allows(make_app: MakeApp, config: Config) -> None:
    client = make_app(replace(config, files=FilesConfig(max_bytes=200_000))).test_client()
    assert send(client, b"x" * 200_000).status_code == 200
    for size in (200_001, 400_000):
        answer = send(client, b"x" * size)
        assert answer.status_code == 413 and "files.max_bytes" in answer.get_json()["error"]["message"]


def small_storage(make_app: MakeApp, config: Config) -> FlaskClient:
    return make_app(replace(config, files=FilesConfig(max_bytes_per_owner=100_000))).test_client()


def test_the_files_of_an_owner_hold_so_many_bytes_together(
    make_app: MakeApp, config: Config, redis_url: str, redis_client: RedisClient
) -> None:
    client = small_storage(make_app, config)
    first = send(client, b"x" * 60_000).get_json()["id"]
    answer = send(client, b"x" * 40_001)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (413, "storage_full")
    assert "60000 of 100000 bytes (files.max_bytes_per_owner)" in answer.get_json()["error"]["message"]
    assert [file["id"] for file in client.get("/v1/files").get_json()["data"]] == [first]
    assert send(client, b"x" * 40_000).status_code == 200
    client.delete(f"/v1/files/{first}")
    assert send(client, b"x" * 60_000).status_code == 200, "a deleted file makes room"


def test_many_small_files_are_many_bytes(make_app: MakeApp, config: Config, redis_url: str) -> None:
    client = small_storage(make_app, config)
    assert [send(client, b"x").status_code for _ in range(9)] == [200] * 7 + [413] * 2


def test_no_batch_begins_where_nothing_can_be_stored(make_app: MakeApp, config: Config, redis_url: str) -> None:
    client = small_storage(make_app, config)
    answer = create(client, LINE.encode().ljust(100_000))
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (413, "storage_full")


def test_an_upload_that_fails_holds_no_bytes(make_app: MakeApp, config: Config, redis_url: str) -> None:
    client = small_storage(make_app, config)
    assert send(client, b"\xff" * 90_000).status_code == 400
    assert send(client, b"x" * 90_000).status_code == 200


def test_a_file_of_many_blank_lines_is_refused_at_once(client: FlaskClient) -> None:
    answer = send(client, b"\n" * (MAX_FILE_LINES + 1))
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "file")
    assert f"{MAX_FILE_LINES} lines" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize(
    "filling", [b"\r\n", b"\r\n--x\r\n\r\n", b"\r\n--x\r\nContent-Disposition: form-data; name=a\r\n\r\n"]
)
def test_a_form_of_millions_of_empty_lines_or_parts_is_refused_at_once(
    make_app: MakeApp, config: Config, filling: bytes
) -> None:
    client = make_app(replace(config, files=FilesConfig())).test_client()
    form = filling * (30_000_000 // len(filling))
    began = time.process_time()
    answer = client.post("/v1/files", data=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 413), answer.text
    assert time.process_time() - began < scaled(2)


def test_files_and_batches_are_listed_page_by_page(client: FlaskClient) -> None:
    made = [create(client, LINE.encode()).get_json() for _ in range(3)]
    newest = [batch["id"] for batch in reversed(made)]
    for path, expected in (("batches", newest), ("files", [batch["input_file_id"] for batch in reversed(made)])):
        first = client.get(f"/v1/{path}?limit=2").get_json()
        assert [entry["id"] for entry in first["data"]] == expected[:2] and first["has_more"]
        second = client.get(f"/v1/{path}?limit=2&after={first['last_id']}").get_json()
        assert [entry["id"] for entry in second["data"]] == expected[2:] and not second["has_more"]
        assert client.get(f"/v1/{path}?after=nothing").get_json()["error"]["param"] == "after"
    oldest = client.get("/v1/files?order=asc&limit=1&purpose=batch").get_json()["data"]
    assert [file["id"] for file in oldest] == [made[0]["input_file_id"]]
    assert client.get("/v1/files?purpose=batch_output").get_json()["data"] == []


def test_what_has_expired_is_listed_no_more(client: FlaskClient, redis_client: RedisClient) -> None:
    ids = [send(client, b"x").get_json()["id"] for _ in range(3)]
    redis_client.delete(keys.file(ids[1]))
    assert [file["id"] for file in client.get("/v1/files").get_json()["data"]] == [ids[2], ids[0]]
    assert redis_client.zcard(keys.files_of("anonymous")) == 2


def test_files_and_batches_belong_to_their_key(make_app: MakeApp, config: Config, client: FlaskClient) -> None:
    locked = make_app(replace(config, auth=AuthConfig(api_keys=KEYS))).test_client()
    mine, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
    file_id = send(locked, LINE.encode(), mine).get_json()["id"]
    batch = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    assert locked.post("/v1/batches", json=batch, headers=other).status_code == 400
    batch_id = locked.post("/v1/batches", json=batch, headers=mine).get_json()["id"]
    for path in (f"files/{file_id}", f"files/{file_id}/content", f"batches/{batch_id}"):
        assert [locked.get(f"/v1/{path}", headers=key).status_code for key in (mine, other)] == [200, 404]
    assert locked.post(f"/v1/batches/{batch_id}/cancel", headers=other).status_code == 404
    assert locked.get("/v1/batches", headers=other).get_json()["data"] == []


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"\n\n", "empty_file", None),
        (f"{LINE}\nno JSON".encode(), "invalid_line", 2),
        (f"{LINE}\n[1]".encode(), "invalid_line", 2),
        (b'{"method": "POST"}', "invalid_line", 1),
        (b'{"custom_id": "\\ud800"}', "invalid_line", 1),
        (b"[" * 100_000, "invalid_line", 1),
        (f"{LINE}\n\n{LINE}".encode(), "duplicate_custom_id", 3),
    ],
)
def test_a_file_without_an_unambiguous_id_for_every_line_fails_its_batch(
    client: FlaskClient, content: bytes, code: str, line: int | None
) -> None:
    batch = create(client, content).get_json()
    assert (batch["status"], batch["error_file_id"]) == ("failed", None)
    (fault,) = batch["errors"]["data"]
    assert (fault["code"], fault["line"]) == (code, line)
    assert client.get(f"/v1/batches/{batch['id']}").get_json() == batch
    assert client.delete(f"/v1/files/{batch['input_file_id']}").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_file_id": "file-nothing"}, "input_file_id"),
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"metadata": {"key": 1}}, "metadata.key.value"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "now", "seconds": 60}}, "output_expires_after.anchor"),
        ({"window": "24h"}, "window"),
    ],
)
def test_a_wrong_batch_is_refused_by_the_name_of_its_field(client: FlaskClient, body: Any, param: str) -> None:
    answer = create(client, LINE.encode(), **body)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param)


def test_a_file_is_not_deleted_while_a_batch_reads_it(client: FlaskClient, app: Flask) -> None:
    batch = create(client, LINE.encode()).get_json()
    answer = client.delete(f"/v1/files/{batch['input_file_id']}")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (409, "conflict")
    assert batch["model"] == MODEL and batch["expires_at"] == batch["created_at"] + 86_400


def test_a_batch_that_never_was_is_not_found(client: FlaskClient) -> None:
    answers = [client.get("/v1/batches/batch_0"), client.post("/v1/batches/batch_0/cancel")]
    assert [answer.get_json()["error"]["code"] for answer in answers] == ["batch_not_found"] * 2
