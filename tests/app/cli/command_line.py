"""The command line in the process of the test, with an environment of its own."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from app.cli.program import llm_api

REPOSITORY = Path(__file__).parents[3]


def environment(data_dir: Path, port: int, **more: str) -> dict[str, str]:
    """Return the environment of a service on one port that reads the repository's config.yaml."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_API_")}
    own = {
        "LLM_API_CONFIG": str(REPOSITORY / "config.yaml"),
        "LLM_API_DATA_DIR": str(data_dir),
        "LLM_API_SERVER": json.dumps({"host": "127.0.0.1", "port": port, "processes": 1, "threads": 16}),
    }
    return kept | own | more


def typed(*words: str, environ: Mapping[str, str] = os.environ, stdin: str | None = None) -> Result:
    """Return what a command line does. `environ` is the whole environment."""
    changes = {name: None for name in os.environ if name not in environ} | dict(environ)
    return CliRunner().invoke(llm_api, words, env=changes, input=stdin)


def refusal(*words: str, environ: Mapping[str, str]) -> str:
    """Return the one line with which a command ends that cannot start."""
    ended = typed(*words, environ=environ)
    assert ended.exit_code == os.EX_CONFIG, ended.output
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr
