import codecs
import gzip
import json
import time
import zlib

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.app.api.scripted_worker import ScriptedWorker

BODY = json.dumps({"prompt": "x"}).encode()


def post(client: FlaskClient, body: bytes, coding: str = "", path: str = "/generate") -> TestResponse:
    return client.post(path, data=body, headers={"Content-Encoding": coding} if coding else {})


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("identity", BODY),
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP", gzip.compress(BODY, mtime=0)),
        ("x-gzip", gzip.compress(BODY, mtime=0)),
        ("gzip", gzip.compress(BODY[:5], mtime=0) + gzip.compress(BODY[5:], mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
    ],
)
def test_a_compressed_body_is_read(client: FlaskClient, worker: ScriptedWorker, coding: str, body: bytes) -> None:
    assert post(client, body, coding).get_json() == "Hello world"


def test_a_byte_order_mark_before_the_json_is_no_part_of_it(client: FlaskClient, worker: ScriptedWorker) -> None:
    assert post(client, codecs.BOM_UTF8 + BODY).get_json() == "Hello world"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "\xff"])
def test_another_encoding_is_refused_by_the_name_of_its_header(client: FlaskClient, coding: str) -> None:
    response = post(client, BODY, coding)
    assert (response.status_code, response.get_json()["code"]) == (415, "unsupported_encoding")
    assert "Content-Encoding" in response.get_json()["detail"]
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


def test_a_compressed_form_is_refused_by_the_name_of_its_header(client: FlaskClient) -> None:
    error = post(client, gzip.compress(BODY, mtime=0), "gzip", "/v1/files")
    assert error.status_code == 415 and "Content-Encoding" in error.get_json()["error"]["message"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [BODY, gzip.compress(BODY, mtime=0)[:-9], zlib.compress(BODY)[:-5], b"\x1f\x8b"])
def test_a_body_that_is_not_what_its_header_says_is_malformed(client: FlaskClient, coding: str, body: bytes) -> None:
    response = post(client, body, coding)
    assert (response.status_code, response.get_json()["code"]) == (400, "malformed_request")
    assert "Content-Encoding" in response.get_json()["detail"]


@pytest.mark.parametrize("size", [99_000, 100_001, 50_000_000])
def test_the_limit_of_a_body_holds_for_what_it_is_decompressed_to(client: FlaskClient, size: int) -> None:
    began = time.process_time()
    response = post(client, gzip.compress(b" " * size, 1), "gzip")
    assert response.status_code == (400 if size < 100_000 else 413)
    assert time.process_time() - began < 1


def test_many_compressed_streams_share_one_limit(client: FlaskClient) -> None:
    assert post(client, gzip.compress(b" " * 60_000) * 2, "gzip").status_code == 413


@pytest.mark.parametrize(
    ("path", "example"),
    [
        ("/generate", '"prompt"'),
        ("/embeddings", '"text"'),
        ("/tokenize", '"text"'),
        ("/detokenize", '"tokens"'),
        ("/v1/completions", '"prompt"'),
        ("/v1/chat/completions", '"messages"'),
        ("/v1/responses", '"input"'),
        ("/v1/embeddings", '"input"'),
        ("/v1/batches", '"input_file_id"'),
        ("/jobs/0f0e7c1c-6a53-4c3e-9d33-5a1b0c7d2e4f", '"priority"'),
    ],
)
def test_a_malformed_body_is_answered_with_an_example_for_its_path(
    client: FlaskClient, path: str, example: str
) -> None:
    response = client.open(path, method="PATCH" if path.startswith("/jobs/") else "POST", data=b"{'prompt': 'x'}")
    assert response.status_code == 400
    text = response.get_json()["detail"] if "v1" not in path else response.get_json()["error"]["message"]
    shown = text.partition("for example ")[2].partition(", with the header")[0]
    assert example in shown
    json.loads(shown)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('{"prompt": "x", "params": {"echo": False}}', "line 1 column 36: JSON writes true, false and null"),
        ('{"params": {\n  ...\n}}', "line 2 column 3: write parameters instead of the dots, or nothing"),
        ('{"params": {\n  // more\n}}', "line 2 column 3: JSON has no comments"),
        ("{'prompt': 'x'}", 'JSON writes texts between "'),
        ('{"suffix": null or string}', "write one of the two"),
        ('{"stop": ["\\Q"]}', r"in JSON a backslash of a text is written \\"),
        ('{"top_k": 40,\n}', "remove the last comma"),
        ('{"stop": ["a", ]}', "remove the last comma"),
        ('{"temp: 0.0,\n"top_k": 40}', 'a text ends on its line: close it with "'),
    ],
)
def test_what_people_write_that_is_not_json_is_named_with_its_cure(client: FlaskClient, text: str, cure: str) -> None:
    response = post(client, text.encode())
    assert response.status_code == 400 and cure in response.get_json()["detail"]


def test_other_faults_of_json_get_no_cure_that_is_wrong(client: FlaskClient) -> None:
    for text in ('{"prompt": }', '{"a": 1 "b": 2}', '{"a"', "[1"):
        assert " column " in (detail := post(client, text.encode()).get_json()["detail"])
        assert ")" in detail[detail.index(" column ") :][:13], "nothing follows the place"
