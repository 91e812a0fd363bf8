"""Embeddings of one text and of many."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import PoolingType

from app.config.settings import Config
from app.errors import InvalidRequest, ModelUnavailable, PromptTooLong, UnsupportedParameter
from tests.workers.engines.llama.driver import GREEDY, complete, request
from tests.workers.engines.llama.tiny_bert import WIDTH, write_bert
from workers.engines.llama.engine import LlamaEngine
from workers.engines.llama.vocabulary import LlamaVocabulary

TEXTS = ["The cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose by one percent this quarter."]


def vectors(engine: LlamaEngine, texts: list[str]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    return np.array([vector for vector, _ in engine.embed(texts)])


def test_vectors_are_normalised_and_counted_in_tokens(engine: LlamaEngine, vocabulary: LlamaVocabulary) -> None:
    results = engine.embed(TEXTS)
    assert [tokens for _, tokens in results] == [len(vocabulary.tokenize(text)) for text in TEXTS]
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) and len(vector) == 576 for vector, _ in results)


def test_a_text_has_the_same_vector_alone_and_among_many(engine: LlamaEngine) -> None:
    many = [*(f"{text} Number {number}." for number in range(15) for text in TEXTS), *TEXTS]
    together = vectors(engine, many)[-3:]
    alone = np.concatenate([vectors(engine, [text]) for text in TEXTS])
    assert (np.sum(together * alone, axis=1) > 0.999).all()


def test_texts_of_like_meaning_are_closer(engine: LlamaEngine) -> None:
    cat, kitten, rates = vectors(engine, TEXTS)
    assert cat @ kitten > cat @ rates


def test_a_long_text_may_fill_the_context_and_no_more(engine: LlamaEngine) -> None:
    assert engine.embed([" a" * 512])[0][1] == 512
    with pytest.raises(PromptTooLong, match=r"length is 512 tokens.* 513 tokens \(513 in text\.1, 0 in") as caught:
        engine.embed(["short", " a" * 513])
    assert list(caught.value.errors) == ["text.1"]


def test_embedding_beside_a_running_decode_changes_neither(engine: LlamaEngine) -> None:
    expected_text = complete(engine, "Once upon a time", max_tokens=24, **GREEDY).text
    expected = vectors(engine, TEXTS)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(vectors(engine, TEXTS) for _ in range(4)))
    thread.start()
    assert complete(engine, "Once upon a time", max_tokens=24, **GREEDY).text == expected_text
    thread.join()
    assert all(np.allclose(each, expected, atol=1e-4) for each in results)


def test_token_ids_have_the_vector_of_their_text(engine: LlamaEngine, vocabulary: LlamaVocabulary) -> None:
    by_text, by_tokens = engine.embed([TEXTS[0], tuple(vocabulary.tokenize(TEXTS[0]))])
    assert by_tokens[1] == by_text[1] and np.dot(by_tokens[0], by_text[0]) > 0.999
    with pytest.raises(InvalidRequest, match="no token 49152") as caught:
        engine.embed(["a", (1, 49152)])
    assert list(caught.value.errors) == ["text.1"]


def load_bert(path: Path) -> LlamaEngine:
    return LlamaEngine(Config(model_name="bert", setup_params={"path": str(path)}), lambda *_: None)


def test_a_model_that_only_embeds_does_that_and_generates_nothing(tmp_path: Path) -> None:
    engine = load_bert(write_bert(tmp_path / "bert.gguf"))
    [(vector, tokens)] = engine.embed(["abc def"])
    assert (len(vector), tokens) == (WIDTH, 8)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UnsupportedParameter, match="use embeddings"):
        engine.prepare(request("abc"))
    engine.close()


def test_a_model_that_can_serve_no_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="it ranks texts, and neither generates nor has embeddings"):
        load_bert(write_bert(tmp_path / "reranker.gguf", PoolingType.RANK))


@pytest.mark.parametrize("epsilon", [-1.0, float("nan"), float("inf")])
def test_a_number_over_which_ggml_ends_the_process_is_refused(tmp_path: Path, epsilon: float) -> None:
    with pytest.raises(ModelUnavailable, match=r"layer_norm_epsilon is .* download it again"):
        load_bert(write_bert(tmp_path / "bert.gguf", epsilon=epsilon))
