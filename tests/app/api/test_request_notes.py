"""The id of each request, and what is noted of it."""

import uuid

import pytest
from flask import request
from flask.testing import FlaskClient

from app.api.request_notes import HEADER, RequestNotes, notes_of
from tests.app.api.scripted_worker import ScriptedWorker


def notes(client: FlaskClient, path: str, **options: object) -> RequestNotes:
    with client:
        response = client.open(path, **options)  # type: ignore[arg-type]
        noted = notes_of(request.environ)
    assert noted is not None
    assert response.headers[HEADER] == noted.request_id
    return noted


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/jobs/no-id"])
def test_a_request_id_is_given_back_also_with_an_error(client: FlaskClient, path: str) -> None:
    assert client.get(path, headers={HEADER: "trace-17/b"}).headers[HEADER] == "trace-17/b"


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "\x7f", "käse"])
def test_a_request_without_a_short_printable_id_gets_a_new_one(client: FlaskClient, given: str | None) -> None:
    shown = [client.get("/healthz", headers={} if given is None else {HEADER: given}).headers[HEADER] for _ in "ab"]
    assert len({uuid.UUID(one) for one in shown}) == 2


def test_the_longest_id_is_kept(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={HEADER: "~" * 128}).headers[HEADER] == "~" * 128


def test_the_route_is_that_of_the_reference_and_the_job_is_the_one_that_was_made(
    client: FlaskClient, worker: ScriptedWorker
) -> None:
    made = notes(client, "/v1/completions", method="POST", json={"prompt": "x"})
    (turn,) = worker.turns
    assert (made.route, made.job_id) == ("/v1/completions", turn.claim.job_id)
    read = notes(client, f"/jobs/{turn.claim.job_id.upper()}")
    assert (read.route, read.job_id) == ("/jobs/{job_id}", turn.claim.job_id)


@pytest.mark.parametrize(("path", "route"), [("/jobs/a%0Ab", "/jobs/{job_id}"), ("/secret-prompt", "")])
def test_what_a_client_writes_into_a_path_is_not_noted(client: FlaskClient, path: str, route: str) -> None:
    seen = notes(client, path)
    assert (seen.route, seen.job_id, seen.key_name) == (route, None, None)
