"""Which models slots can hold, according to their configuration."""

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.workers.engines.transformers.models import ARCHITECTURES, END, WINDOW, tiny, tokenizer
from workers.engines.transformers.loading.layout import batched_limits, context_tokens, layout_of
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.loading.params import ModelKind, TransformersModelParams
from workers.engines.transformers.loading.source import WeightsSource

YARN = {"rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 128}


def loaded(architecture: str = "llama", **changes: Any) -> LoadedModel:
    if changes:
        config = LlamaConfig(**{**ARCHITECTURES["llama"], "eos_token_id": END, **changes})
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = AutoModelForCausalLM.from_pretrained(tiny(architecture))
    source = WeightsSource(folder=tiny(architecture), tokenizer_folder=tiny(architecture))
    return LoadedModel(model=model.eval(), tokenizer=tokenizer(), kind=ModelKind.CAUSAL, source=source)


@pytest.mark.parametrize(
    ("architecture", "windows"),
    [
        ("llama", {"full_attention": None}),
        ("mistral", {"sliding_attention": WINDOW}),
        ("gemma2", {"full_attention": None, "sliding_attention": WINDOW}),
    ],
)
def test_windows_are_read_by_kind_of_layer(architecture: str, windows: dict[str, int | None]) -> None:
    layout = layout_of(loaded(architecture), 64)
    assert layout is not None
    assert (layout.layers, layout.windows) == (2, windows)


def test_a_cell_is_as_large_as_keys_and_values_of_all_layers() -> None:
    layout = layout_of(loaded("llama"), 64)
    assert layout is not None
    assert layout.bytes_per_cell == 2 * 2 * (2 * 16) * 4, "layers, keys and values, two heads of 16, float32"


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_depend_on_the_longest_row_are_accepted_within_the_trained_length(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    rope = {**YARN, "rope_type": kind} | (
        {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if kind[0] == "l" else {}
    )
    model = loaded(rope_parameters=rope)
    assert layout_of(model, 128) is not None
    assert layout_of(model, 200) is None
    assert "rotary frequencies change at 128 tokens" in caplog.text


def test_attention_that_takes_no_mask_of_ours_runs_solo(caplog: pytest.LogCaptureFixture) -> None:
    model = loaded("llama")
    model.model.config._attn_implementation = "flash_attention_2"
    assert layout_of(model, 64) is None
    assert "sdpa does" in caplog.text


@pytest.mark.parametrize(
    ("architecture", "n_ctx", "expected"), [("llama", None, 256), ("llama", 100, 100), ("mamba", None, 2048)]
)
def test_the_context_is_the_trained_one_unless_another_is_configured(
    architecture: str, n_ctx: int | None, expected: int
) -> None:
    assert context_tokens(loaded(architecture), TransformersModelParams(n_ctx=n_ctx)) == expected


def test_a_step_has_room_for_a_token_of_every_slot() -> None:
    model = loaded("llama")
    layout = layout_of(model, 64)
    assert layout is not None
    limits = batched_limits(model, layout, 64, TransformersModelParams(n_batch=2), 5)
    assert (limits.slots, limits.context_tokens, limits.max_batched_tokens) == (5, 64, 5)
