"""Embeddings of an encoder and of a causal model, compared with vectors computed by transformers itself."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import PromptTooLong, UnsupportedParameter
from tests.workers.engines.transformers.conftest import engine_of
from tests.workers.engines.transformers.driver import complete, make_engine, refusal, request
from tests.workers.engines.transformers.models import CONTEXT, MINILM, tiny
from workers.engines.transformers.embeddings import Pooling, pooling_of
from workers.engines.transformers.engine import HuggingfaceEngine
from workers.engines.transformers.loading.params import ModelKind

TEXTS = ["The cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose by one percent this quarter."]


@pytest.fixture(scope="module")
def minilm() -> Iterator[HuggingfaceEngine]:
    yield make_engine(MINILM)


def vectors(engine: HuggingfaceEngine, texts: list[str]) -> Any:
    return np.array([vector for vector, _ in engine.embed(texts)])


def test_an_encoder_is_recognised_by_its_architecture(minilm: HuggingfaceEngine) -> None:
    assert minilm._loaded.kind is ModelKind.EMBEDDING
    assert minilm.limits.context_tokens == 512
    assert isinstance(refusal(minilm), UnsupportedParameter)


def test_vectors_are_the_mean_of_the_encoders_vectors_of_each_token(minilm: HuggingfaceEngine) -> None:
    model, tokenizer = minilm._loaded.model, minilm._loaded.tokenizer
    results = minilm.embed(TEXTS)
    for text, (vector, tokens) in zip(TEXTS, results, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        assert vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
        assert tokens == inputs.input_ids.shape[1]
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("architecture", ["minilm", "llama", "mamba"])
def test_a_text_has_the_same_vector_alone_and_among_many(minilm: HuggingfaceEngine, architecture: str) -> None:
    engine = minilm if architecture == "minilm" else engine_of(architecture)
    many = [*(f"{text} Number {number}." for number in range(15) for text in TEXTS), *TEXTS]
    together = vectors(engine, many)[-3:]
    alone = np.concatenate([vectors(engine, [text]) for text in TEXTS])
    assert (np.sum(together * alone, axis=1) > 0.9999).all()


def test_texts_of_like_meaning_are_closer(minilm: HuggingfaceEngine) -> None:
    cat, kitten, rates = vectors(minilm, TEXTS)
    assert cat @ kitten > 0.5 > cat @ rates


def test_a_text_longer_than_the_model_reads_is_refused_by_its_number(minilm: HuggingfaceEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"length is 512 tokens.* in text\.1,") as caught:
        minilm.embed(["short", "word " * 600])
    assert list(caught.value.errors) == ["text.1"]


def test_a_causal_model_embeds_beside_its_running_batch(llama: HuggingfaceEngine) -> None:
    expected = vectors(llama, TEXTS)
    job_request = request("beside it", max_tokens=60, ignore_eos=True)
    (alone,) = complete(llama, job_request)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(vectors(llama, TEXTS) for _ in range(10)))
    thread.start()
    (beside,) = complete(llama, job_request)
    thread.join()
    assert beside.tokens == alone.tokens
    assert all(np.allclose(each, expected, atol=1e-5) for each in results)
    ids = torch.tensor([llama._vocabulary.tokenize(TEXTS[0])])
    mean = llama._loaded.model.base_model(ids).last_hidden_state[0].mean(dim=0)
    assert expected[0] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)


def test_a_causal_model_may_be_set_up_for_embeddings_only() -> None:
    engine = make_engine(tiny("llama"), setup={"model_kind": "embedding"})
    assert isinstance(refusal(engine), UnsupportedParameter)
    assert engine.limits.context_tokens == CONTEXT
    assert vectors(engine, TEXTS) == pytest.approx(vectors(engine_of("llama"), TEXTS), abs=1e-6)


@pytest.mark.parametrize(
    ("pooling_config", "pooling"),
    [
        (None, Pooling.MEAN),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, Pooling.MEAN),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, Pooling.CLS),
        ({"pooling_mode_lasttoken": True}, Pooling.LAST),
    ],
)
def test_a_folder_of_sentence_transformers_decides_the_pooling(
    tmp_path: Path, pooling_config: dict[str, bool] | None, pooling: Pooling
) -> None:
    if pooling_config is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling_config))
    assert pooling_of(tmp_path) is pooling
