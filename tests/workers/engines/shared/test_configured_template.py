"""`model_params.chat_template`: a template, the path of its file, or the name of one."""

from pathlib import Path

import pytest

from app.errors import ConfigError
from workers.engines.shared.configured_template import configured_template


def test_a_configured_template_is_its_source_or_the_path_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}")
    assert configured_template(str(file)) == configured_template("{{ messages }}") == "{{ messages }}"


@pytest.mark.parametrize(("value", "reason"), [("{% for %}", "line 1"), ("/nowhere/chat.jinja", "cannot be read")])
def test_an_invalid_configured_template_stops_the_start(value: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"model_params.chat_template.*{reason}"):
        configured_template(value)


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean vicuna"):
        configured_template("vicunna")
    with pytest.raises(ConfigError, match="known are alpaca, chatml, koala, llama-2, vicuna"):
        configured_template("mpt")
