"""`config show`: every key with its source, and no secret."""

import json
from pathlib import Path
from typing import Any

from tests.app.cli.command_line import environment, typed

CONFIG = """\
host: 127.0.0.1
setup_params: {repo_id: org/model, filename: model.gguf, token: hunter2, base_url: "http://a:hunter2@b/v1"}
model_params: {n_ctx: 512, loras: {mine: {path: /x, scale: 2}}}
redis_url: rediss://user:hunter2@redis:6379/0
auth: {api_keys: [hunter2, hunter3]}
jobs:
cache: {ttl: 60}
"""
VARIABLES = {
    "LLM_API_SERVER": "",
    "LLM_API_SERVER__THREADS": "32",
    "LLM_API_CACHE": '{"across_keys": true}',
    "LLM_API_MODEL_PARAMS__N_THREADS": "2",
    "LLM_API_PORT": "9000",
    "LLM_API_WEBHOOKS__SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def shown(tmp_path: Path, *words: str) -> dict[str, tuple[Any, str]]:
    (file := tmp_path / "config.yaml").write_text(CONFIG)
    environ = environment(tmp_path, 8000, **VARIABLES, LLM_API_CONFIG=str(file))
    ran = typed("config", "show", "--json", *words, environ=environ)
    assert ran.exit_code == 0, ran.output
    assert "hunter" not in ran.output and "MfKQ" not in ran.output
    return {one["key"]: (one["value"], one["source"].replace(str(file), "file")) for one in json.loads(ran.stdout)}


def test_every_key_is_shown_with_where_its_value_comes_from(tmp_path: Path) -> None:
    values = shown(tmp_path)
    assert values["server.threads"] == (32, "LLM_API_SERVER__THREADS")
    assert values["server.port"] == (9000, "LLM_API_PORT")
    assert values["server.host"] == ("127.0.0.1", "file"), "by its name in the original"
    assert values["server.processes"] == (2, "default")
    assert values["jobs.ttl"] == (86_400, "default")
    assert values["cache.across_keys"] == (True, "LLM_API_CACHE")
    assert values["cache.ttl"] == (0, "default"), "the variable replaced the section of the file"
    assert values["model_params.n_ctx"] == (512, "file")
    assert values["model_params.n_threads"] == (2, "LLM_API_MODEL_PARAMS__N_THREADS")
    assert values["model_params.loras"] == ({"mine": {"path": "/x", "scale": 2}}, "file")
    assert values["model_name"] == ("model", "derived from setup_params")
    assert values["worker.slots"] == (None, "default")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    values = shown(tmp_path)
    assert values["setup_params.token"] == ("***", "file")
    assert values["setup_params.base_url"] == ("http://***@b/v1", "file")
    assert values["auth.api_keys"] == (["***", "***"], "file")
    assert values["webhooks.secret"] == ("***", "LLM_API_WEBHOOKS__SECRET")
    assert values["redis_url"] == ("rediss://***@redis:6379/0", "file")


def test_only_what_was_changed_is_shown_where_that_is_asked(tmp_path: Path) -> None:
    values = shown(tmp_path, "--changed")
    assert "server.threads" in values and "server.processes" not in values
    assert {source for _, source in values.values()} >= {"file", "LLM_API_PORT"}


def test_the_table_for_people_has_the_same_lines(tmp_path: Path) -> None:
    ran = typed("config", "show", "--changed", environ=environment(tmp_path, 8000))
    assert ["server.port", "8000", "LLM_API_SERVER"] in [line.split() for line in ran.stdout.splitlines()]
