"""`model_params`: what is accepted, warned about, refused."""

from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError
from workers.engines.llama.model_params import CacheType, DraftParams, LlamaModelParams


def test_every_key_of_the_original_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    params = LlamaModelParams.read(
        {
            "n_ctx": 512,
            "n_parts": -1,
            "n_gpu_layers": 0,
            "seed": -1,
            "use_mmap": True,
            "use_mlock": False,
            "n_threads": 4,
            "n_batch": 512,
            "last_n_tokens_size": 64,
            "lora_base": None,
            "lora_path": "/adapter.gguf",
            "low_vram": False,
            "tensor_split": [1, 2.5],
            "rope_freq_base": 10000.0,
            "rope_freq_scale": 1,
            "verbose": True,
        }
    )
    assert params.lora_path == Path("/adapter.gguf") and params.tensor_split == (1.0, 2.5)
    assert [record.args[0] for record in caplog.records if record.args] == ["n_parts", "lora_base", "low_vram"]  # type: ignore[index]


def test_the_originals_other_names_are_names_of_ours() -> None:
    params = LlamaModelParams.read({"ctx_size": 2000, "num_threads": 2, "n_threads": 2, "batch_size": 64, "seed": -1})
    assert (params.n_ctx, params.n_threads, params.n_batch, params.seed) == (2000, 2, 64, -1)


@pytest.mark.parametrize("value", ["q8_0", "Q8_0", 8])
def test_the_type_of_the_cache_has_llama_cpps_name_or_number(value: object) -> None:
    params = LlamaModelParams.read({"type_k": value, "type_v": value, "flash_attn": True})
    assert (params.type_k, params.type_v, params.flash_attn) == (CacheType.Q8_0, CacheType.Q8_0, True)


def test_null_is_the_default() -> None:
    assert LlamaModelParams.read({"n_ctx": None, "lora_path": None, "n_threads": None}) == LlamaModelParams()


def test_a_draft_model_is_loaded_like_the_model_but_for_what_is_of_the_model_alone() -> None:
    params = LlamaModelParams.read(
        {"n_threads": 3, "type_k": "q8_0", "lora_path": "/a", "rope_freq_base": 1e4, "draft": {"path": "/small.gguf"}}
    )
    assert params.draft == DraftParams(source={"path": "/small.gguf"}, max_tokens=8)
    assert params.of_draft == LlamaModelParams(n_threads=3, type_k=CacheType.Q8_0)


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ({"n_ctxx": 1}, "did you mean n_ctx?"),
        ({"qqqq": 1}, "known are n_ctx"),
        ({"ctx_size": 512, "n_ctx": 511}, "ctx_size and model_params.n_ctx mean the same and differ: keep n_ctx"),
        ({"ctx_size": "512"}, "n_ctx must be an integer"),
        ({"n_ctx": "512"}, "n_ctx must be an integer"),
        ({"n_ctx": True}, "n_ctx must be an integer"),
        ({"n_ctx": -1}, "at least 0"),
        ({"n_ctx": 2**40}, "32 bits"),
        ({"n_batch": 0}, "at least 1"),
        ({"type_k": "q9_0"}, "type_k must be one of f32, f16, q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, bf16, not 'q9_0'"),
        ({"type_v": 4}, "type_v must be one of f32"),
        ({"type_v": True}, "type_v must be one of f32"),
        ({"flash_attn": 1}, "true or false"),
        ({"type_v": "q8_0", "flash_attn": False}, "type_v q8_0 needs flash attention: leave out model_params.flash_"),
        (
            {"draft": "small.gguf"},
            "model_params.draft must be a mapping such as {repo_id: owner/name, filename: small.",
        ),
        ({"draft": {"path": "a", "max_token": 4}}, "model_params.draft.max_token is unknown: did you mean max_tokens?"),
        ({"draft": {"qqqq": 4}}, "model_params.draft.qqqq is unknown: known are path, package"),
        ({"draft": {"path": "a", "max_tokens": 0}}, "model_params.draft.max_tokens must be an integer from 1 to 32"),
        ({"draft": {"path": "a", "max_tokens": 33}}, "an integer from 1 to 32"),
        ({"use_mmap": 1}, "true or false"),
        ({"rope_freq_base": float("nan")}, "a number"),
        ({"tensor_split": 0.5}, "a list of numbers"),
        ({"lora_path": ""}, "the path of a file"),
        ({"chat_template": 1}, "a Jinja template, or the path of one"),
        ({"chat_template": "{% for %}"}, "no Jinja template"),
    ],
)
def test_a_wrong_value_names_the_key_and_what_was_expected(raw: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LlamaModelParams.read(raw)
    assert hint in caught.value.detail and "model_params." in caught.value.detail
