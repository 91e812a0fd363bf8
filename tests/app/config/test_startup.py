"""How a program ends that cannot start."""

import os
import time

import pytest

from app.config.startup import give_up
from app.errors import ConfigError, ModelUnavailable


def test_the_reason_is_one_line_and_the_status_is_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert give_up(ConfigError("the key is wrong"), environ={}) == os.EX_CONFIG == 78
    assert give_up(ModelUnavailable("there is no file"), "worker", environ={}) == os.EX_CONFIG
    assert capsys.readouterr().err == "the key is wrong\nworker: there is no file\n"


@pytest.mark.parametrize(("delay", "seconds"), [("1", 1), ("0", 0), ("", 0), ("soon", 0)])
def test_a_program_that_is_restarted_for_ever_waits_before_it_ends(delay: str, seconds: int) -> None:
    started = time.monotonic()
    assert give_up(ConfigError("the key is wrong"), environ={"LLM_API_EXIT_DELAY": delay}) == os.EX_CONFIG
    assert seconds <= time.monotonic() - started < seconds + 0.9
