"""Which prompt format a model without a chat template gets, and how an operator names another."""

import shutil
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.jobs.job import Chat
from tests.workers.engines.transformers.driver import make_engine
from tests.workers.engines.transformers.models import tiny
from workers.engines.transformers.loading.params import TransformersModelParams

CHAT = Chat(messages=[{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("folder", "params", "beginning"),
    [
        ("tiny-llama", {}, "<|im_start|>user"),
        ("koala-7b", {}, "BEGINNING OF CONVERSATION:"),
        ("koala-7b", {"chat_template": "llama-2"}, "[INST] Hi"),
    ],
)
def test_the_name_of_a_model_or_the_operator_says_how_chats_are_written(
    tmp_path: Path, folder: str, params: dict[str, str], beginning: str
) -> None:
    engine = make_engine(shutil.copytree(tiny("llama"), tmp_path / folder), slots=1, **params)
    shown = engine.detokenize(engine.tokenize(CHAT, add_special=False))
    assert "".join(shown.split()).startswith("".join(beginning.split()))
    engine.close()


def test_a_template_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}")
    params = TransformersModelParams.read({"chat_template": str(file)})
    assert params.for_tokenizer == {"chat_template": "{{ messages }}"}
    with pytest.raises(ConfigError, match=r"model_params\.chat_template: vicunna .*did you mean vicuna"):
        TransformersModelParams.read({"chat_template": "vicunna"})
