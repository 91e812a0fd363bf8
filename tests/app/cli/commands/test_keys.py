"""`llm-api keys`, typed against a real Valkey."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from app.access.authentication import Authentication
from app.access.key_store import KeyStore
from app.config.own_command import own_command
from app.config.settings import AuthConfig
from app.jobs.redis_client import RedisClient
from tests.app.cli.command_line import REPOSITORY, environment, refusal, typed

Typed = Callable[..., Result]


@pytest.fixture
def environ(tmp_path: Path, redis_url: str) -> dict[str, str]:
    return environment(tmp_path, 1, LLM_API_REDIS_URL=redis_url)


@pytest.fixture
def keys(environ: dict[str, str]) -> Typed:
    return lambda *words: typed("keys", *words, environ=environ)


@pytest.fixture
def door(redis_client: RedisClient) -> Authentication:
    return Authentication(AuthConfig(), KeyStore(redis_client), now=time.monotonic_ns)


def shown(keys: Typed, name: str) -> Any:
    return json.loads(keys("show", name, "--json").stdout)


def test_a_created_key_is_the_only_thing_on_stdout_and_opens(keys: Typed, door: Authentication) -> None:
    made = keys("create", "anna", "--scope", "admin")
    assert made.exit_code == 0 and made.stdout.count("\n") == 1
    key = door.key_of(made.stdout.strip().encode())
    assert key is not None and (key.name, key.scopes) == ("anna", {"admin"})
    assert f"The key anna ({key.id}) is shown here once" in made.stderr
    assert made.stdout.strip() not in keys("list").output + keys("show", "anna").output


def test_options_become_fields(keys: Typed) -> None:
    made = keys(
        *(
            "create",
            "app",
            "--group",
            "web",
            "--scope",
            "jobs",
            "--scope",
            "inference",
            "--model",
            "m",
            "--model",
            "a-*",
        ),
        *("--weight", "2.5", "--max-priority", "normal", "--requests-per-minute", "60", "--tokens-per-day", "1000"),
        *("--expires", "90d", "--json"),
    )
    key = json.loads(made.stdout)
    assert key["key"].startswith("llm-")
    limits = {name: value for name, value in key["limits"].items() if value}
    assert (key["group"], key["scopes"], key["models"]) == ("web", ["inference", "jobs"], ["m", "a-*"])
    assert (key["weight"], key["max_priority"]) == (2.5, "normal")
    assert limits == {"requests_per_minute": 60, "tokens_per_day": 1000}
    assert keys("create", "b", "--expires", "2990-01-31").exit_code == 0
    assert shown(keys, "b")["expires_at"][:7] == "2990-01"


def test_an_update_changes_what_it_names_and_none_is_the_default(keys: Typed) -> None:
    keys(
        "create", "app", "--group", "web", "--model", "m", "--max-tokens", "5", "--waiting-jobs", "7", "--expires", "1d"
    )
    keys("update", "app", "--max-tokens", "none", "--expires", "none", "--models", "none")
    changed = keys("update", "app", "--max-tokens", "none", "--expires", "none", "--model", "none", "--group", "none")
    assert changed.exit_code == 0 and "waiting jobs  7" in changed.stdout
    key = shown(keys, "app")
    assert (key["group"], key["models"], key["expires_at"]) == (None, [], None)
    assert (key["limits"]["max_tokens"], key["limits"]["waiting_jobs"]) == (None, 7)
    assert keys("update", "app", "--name", "new", "--weight", "3").exit_code == 0
    assert shown(keys, "new")["weight"] == 3.0


def test_a_rotation_prints_another_secret(keys: Typed, door: Authentication) -> None:
    secrets = [keys(*words).stdout.strip() for words in (("create", "a"), ("rotate", "a", "--grace", "1h"))]
    assert all(door.key_of(secret.encode()) for secret in secrets)
    secrets.append(keys("rotate", "a").stdout.strip())
    assert [door.key_of(secret.encode()) is not None for secret in secrets] == [False, False, True]


def test_a_revoked_key_is_listed_on_demand_and_forgotten_on_demand(keys: Typed, door: Authentication) -> None:
    secret = keys("create", "a").stdout.strip()
    key_id = shown(keys, "a")["id"]
    assert f"a ({key_id}) is revoked" in keys("revoke", "a").stdout
    assert door.key_of(secret.encode()) is None and door.is_needed()
    assert "a" not in [key["name"] for key in json.loads(keys("list", "--json").stdout)]
    assert key_id in keys("list", "--revoked").stdout
    assert "revoked and forgotten" in keys("revoke", key_id, "--forget").stdout
    assert not door.is_needed()


def test_without_keys_a_line_says_so_in_place_of_a_table(keys: Typed) -> None:
    listed = keys("list")
    assert (listed.stdout, listed.stderr) == ("", "there is no API key\n")


def test_the_first_key_says_what_it_changes_and_how_it_is_used(keys: Typed) -> None:
    made = keys("create", "a")
    assert "Every request needs a key from now on; what was made without one" in made.stderr
    assert f"the scope admin only: `{own_command('keys create NAME --scope admin')}` makes one." in made.stderr
    assert "export LLM_API_KEY=KEY for llm-api, -H 'Authorization: Bearer KEY' for curl" in made.stderr
    assert made.stdout.strip() not in made.stderr, "it may be assigned while a terminal shows stderr"
    assert "from now on" not in keys("create", "b").stderr


def test_the_last_key_says_that_everything_is_refused_and_the_ways_out_are_true(
    keys: Typed, door: Authentication
) -> None:
    keys("create", "a")
    keys("create", "b")
    assert keys("revoke", "a").stderr == ""
    ended = keys("revoke", "b").stderr
    create = own_command("keys create NAME --scope admin")
    assert f"every request is refused. `{create}` makes another;\n" in ended and door.is_needed()
    way_back = own_command("keys revoke --forget --all-revoked")
    assert f"`{way_back}` lets requests need no key" in ended
    assert f"`{way_back}` lets requests need no key" in keys("revoke", "b", "--forget").stderr
    assert door.is_needed()
    forgotten = keys("revoke", "--forget", "--all-revoked")
    assert forgotten.stderr == "No key is left, so requests need none from now on.\n"
    assert forgotten.stdout.endswith("is revoked and forgotten\n") and not door.is_needed()


def test_the_way_back_names_the_keys_that_have_expired_too(
    keys: Typed, door: Authentication, redis_client: RedisClient
) -> None:
    keys("create", "old")
    keys("create", "a")
    KeyStore(redis_client).update(shown(keys, "old")["id"], {"expires_at": time.time() - 1})
    way_back = "keys revoke --forget --all-revoked old"
    assert f"`{own_command(way_back)}` lets" in keys("revoke", "a").stderr
    assert keys(*way_back.split()[1:]).exit_code == 0 and not door.is_needed()


def test_several_keys_are_revoked_at_once(keys: Typed) -> None:
    for name in "abc":
        keys("create", name)
    assert keys("revoke", "a", "b").stdout.count(" is revoked\n") == 2
    assert keys("list").stdout.count("\n") == 2


def test_on_a_terminal_the_last_key_is_revoked_after_a_question(
    keys: Typed, environ: dict[str, str], door: Authentication
) -> None:
    secret = keys("create", "a").stdout.strip().encode()
    command = [sys.executable, "-m", "app.cli", "keys", "revoke", "a"]

    def answered(answer: str) -> tuple[int, str]:
        master, slave = pty.openpty()
        os.write(master, answer.encode())
        ran = subprocess.run(command, cwd=REPOSITORY, env=environ, stdin=slave, stderr=subprocess.PIPE, text=True)
        os.close(master)
        os.close(slave)
        return ran.returncode, ran.stderr

    status, stderr = answered("n\n")
    assert status == 1 and stderr.startswith("Afterwards: No key is left") and "nothing was revoked" in stderr
    assert door.key_of(secret)
    assert answered("y\n")[0] == 0
    assert door.key_of(secret) is None


def test_where_the_configuration_requires_keys_the_last_one_says_nothing_of_requests_without(
    keys: Typed, environ: dict[str, str]
) -> None:
    keys("create", "a")
    environ["LLM_API_AUTH"] = json.dumps({"required": True})
    ended = keys("revoke", "a", "--forget").stderr
    assert "every request is refused" in ended and "need no key" not in ended
    assert "from now on" not in keys("create", "a").stderr
    environ["LLM_API_AUTH"] = json.dumps({"admin_keys": ["hunter2hunter2"]})
    assert keys("revoke", "a").stderr == ""


def test_a_revoked_key_is_known_by_its_name(keys: Typed) -> None:
    keys("create", "a")
    keys("revoke", "a")
    assert keys("list").stderr == "not listed: 1 revoked key (--revoked)\nthere is no other API key\n"
    assert keys("list", "--revoked").stderr == ""
    assert shown(keys, "a")["revoked_at"]
    assert f"the API key 'a' is revoked; `{own_command('keys list --revoked')}` shows it" in keys("rotate", "a").stderr
    keys("create", "a")
    keys("revoke", "a")
    several = keys("revoke", "a", "--forget")
    assert several.exit_code == 1 and "2 revoked keys had the name 'a'; name one by its id: key-" in several.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("create", "two words"), 2, "name: Must be 1 to 64 letters"),
        (("create", "a", "--scope", "root"), 2, "--scope: Must be one of: inference, jobs, batches, admin"),
        (("create", "a", "--weight", "0"), 2, "--weight: Must be"),
        (("create", "a", "--tokens-per-day", "0"), 2, "--tokens-per-day: Must be"),
        (("revoke", "--all-revoked"), 2, "--all-revoked is for --forget"),
        (("revoke",), 2, "name a key"),
        (("create", "a", "--max-tokens", "many"), 2, "expected a whole number, or none"),
        (("create", "a", "--expires", "soon"), 2, "expected a time such as 90d"),
        (("create", "a", "--expires", "2020-01-01"), 2, "--expires: Must be in the future."),
        (("create", "taken"), 1, "another API key has the name 'taken'"),
        (("rotate", "missing"), 1, f"no API key has the name or id 'missing'; `{own_command('keys list')}` shows them"),
        (("rotate", "taken", "--grace", "soon"), 2, "expected a time such as 30m"),
    ],
)
def test_what_is_wrong_is_one_line(keys: Typed, words: tuple[str, ...], status: int, message: str) -> None:
    keys("create", "taken")
    ended = keys(*words)
    assert ended.exit_code == status and message in ended.stderr


def test_without_a_redis_the_line_says_what_to_start(tmp_path: Path) -> None:
    away = typed("keys", "list", environ=environment(tmp_path, 1, LLM_API_REDIS_URL="redis://127.0.0.1:1/0"))
    assert away.exit_code == os.EX_UNAVAILABLE and f"Redis or {own_command('run')} is up" in away.stderr
    assert "redis_url is not set" in refusal("keys", "list", environ=environment(tmp_path, 1))
