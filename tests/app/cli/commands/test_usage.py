"""`llm-api usage` against the application over a real Valkey."""

import csv
import io
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import Result
from werkzeug.serving import make_server

from app.api.application import create_app
from app.api.request_context import services_of
from app.config.settings import Config
from app.jobs.job import ANONYMOUS
from tests.app.api.routes.test_usage import row_of, write_rows
from tests.app.cli.command_line import typed
from tests.valkey import Valkey

MODEL = "scripted"


@pytest.fixture(scope="module")
def url(valkey: Valkey) -> Iterator[str]:
    app = create_app(Config(model_name=MODEL, redis_url=valkey.url))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()
    services_of(app).jobs.waiters.close()


@pytest.fixture
def rows(redis_url: str) -> None:
    write_rows(redis_url, 1, row_of(ANONYMOUS, "x", 1000) | row_of(ANONYMOUS, "", 2))
    write_rows(redis_url, 0, row_of(ANONYMOUS, "x", 4))


def usage(url: str, *words: str) -> Result:
    return typed("usage", "--url", url, *words)


@pytest.mark.usefixtures("rows")
def test_usage_is_a_table_with_a_total(url: str) -> None:
    ended = usage(url, "--by", "label,key")
    assert ended.exit_code == 0, ended.output
    head, *lines, total = (line.split() for line in ended.stdout.splitlines())
    assert head[:6] == ["LABEL", "KEY", "KEY", "NAME", "REQUESTS", "SUCCEEDED"]
    assert "FAILED" not in head and "SECONDS" not in head, "a column of nothing but 0 is left out"
    place = head.index("REQUESTS") - len(head)
    assert [line[place] for line in lines] == ["2", "1,004"]
    assert (total[0], total[place]) == ("total", "1,006")


@pytest.mark.usefixtures("rows")
def test_the_one_model_of_all_rows_is_named_once_above_them(url: str) -> None:
    model, empty, head, *_ = usage(url).stdout.splitlines()
    assert (model.split(), empty, head.split()[0]) == (["model", MODEL], "", "DAY")
    assert usage(url, "--by", "model").stdout.split()[0] == "MODEL"


@pytest.mark.usefixtures("rows")
def test_usage_is_json_or_csv_for_programs(url: str) -> None:
    report = json.loads(usage(url, "--json").stdout)
    assert (report["total"]["requests"], report["by"]) == (1006, ["day", "model"])
    (row,) = csv.DictReader(io.StringIO(usage(url, "--csv", "--by", "model").stdout))
    assert (row["model"], row["requests"]) == (MODEL, "1006")
    assert usage(url, "--csv", "--json").exit_code == 2


@pytest.mark.usefixtures("rows")
def test_usage_is_of_the_days_that_are_named(url: str) -> None:
    yesterday = str(datetime.now(UTC).date() - timedelta(1))
    report = json.loads(usage(url, "--json", "--from", yesterday, "--to", yesterday).stdout)
    assert report["total"]["requests"] == 1002


def test_a_group_that_does_not_exist_is_one_line(url: str) -> None:
    ended = usage(url, "--by", "color")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("Error: --by: Must be one of: day, model") and ended.stderr.count("\n") == 1
    ended = usage(url, "--from", "2026-11-02", "--to", "2026-11-01")
    assert ended.stderr.startswith("Error: --from: ") or ended.stderr.startswith("Error: --to: "), ended.stderr


@pytest.mark.usefixtures("rows")
def test_the_usage_of_a_key_is_asked_for_by_name(url: str) -> None:
    assert json.loads(usage(url, "--json", "--key", ANONYMOUS).stdout)["total"]["requests"] == 1006
    assert usage(url, "--key", "key-0123456789abcdef01234567").exit_code == os.EX_NOPERM
