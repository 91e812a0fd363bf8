"""Embeddings: a context of their own, many texts in one batch, pooled here.

llama.cpp's own pooling wants a text in one physical batch, and keeps `[batch, vocabulary]` floats for it: 400 MB for a
text of 2,048 tokens. Pooling the token embeddings here lets a long text pass in pieces.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from app.errors import EngineFailed, UnsupportedParameter
from app.jobs.job import Text
from workers.engines.llama.adapters import AdapterSet
from workers.engines.llama.batch import TokenBatch
from workers.engines.llama.context import context_settings
from workers.engines.llama.library import library_log
from workers.engines.llama.model import Model
from workers.engines.llama.model_params import LlamaModelParams

MAX_TEXTS = 32  # in one batch
MAX_ROWS = 512  # of one decode, where the model reads from left to right

Matrix = npt.NDArray[np.float32]


class PoolingType(IntEnum):
    """As GGUF files name it in `<architecture>.pooling_type`."""

    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


Tokens = list[int]


class LlamaEmbedder:
    """One thread at a time; may run beside the generation context of the same model. max_tokens: of one text."""

    def __init__(self, model: Model, params: LlamaModelParams, max_tokens: int) -> None:
        self._pooling = pooling_of(model)
        if self._pooling is PoolingType.RANK:
            raise UnsupportedParameter("this model ranks texts and has no embeddings")
        self._vocabulary = model.vocabulary
        self._adapters = model.adapters
        self._max_tokens = max_tokens
        self._size: int = llama_cpp.llama_model_n_embd_out(model.pointer)
        # A model that reads in both directions must have the whole text in one batch.
        self._rows = min(MAX_ROWS, max_tokens) if model.is_causal else max_tokens
        self._batch = TokenBatch(self._rows)
        settings = context_settings(params, cells=max_tokens, sequences=MAX_TEXTS, rows=self._rows)
        settings.embeddings, settings.pooling_type, settings.kv_unified = True, llama_cpp.LLAMA_POOLING_TYPE_NONE, True
        self._context: Any = model.new_context(settings)
        if self._context is None:
            raise EngineFailed(f"llama.cpp cannot make the embedding context ({library_log().last_errors()})")
        self._memory = llama_cpp.llama_get_memory(self._context)

    def embed(
        self, texts: Sequence[Text], *, first: int = 0, adapters: AdapterSet = ()
    ) -> list[tuple[list[float], int]]:
        """See `Engine.embed`."""
        to_tokens, cure = self._vocabulary.text_to_embed, "raise model_params.n_ctx"
        read = [to_tokens(text, f"text.{index}", self._max_tokens, cure) for index, text in enumerate(texts, first)]
        vectors = [vector for group in self._groups(read) for vector in self._run(group, adapters)]
        return [(vector.tolist(), len(tokens)) for vector, tokens in zip(vectors, read, strict=True)]

    def close(self) -> None:
        if self._context is not None:
            self._adapters.forget_context(self._context)
            llama_cpp.llama_free(self._context)
            self._context = None

    def _groups(self, texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """Texts that fit one decode together; a longer one goes alone, in pieces."""
        group: list[Tokens] = []
        rows = 0
        for text in texts:
            if group and (rows + len(text) > self._rows or len(group) == MAX_TEXTS):
                yield group
                group, rows = [], 0
            group.append(text)
            rows += len(text)
        if group:
            yield group

    def _run(self, group: list[Tokens], adapters: AdapterSet) -> list[Matrix]:
        tokens = [token for text in group for token in text]
        positions = [position for text in group for position in range(len(text))]
        sequences = [number for number, text in enumerate(group) for _ in text]
        parts = [slice(at, at + self._rows) for at in range(0, len(tokens), self._rows)]
        pieces = [self._decode(tokens[part], positions[part], sequences[part], adapters) for part in parts]
        if self._memory is not None:  # models that read in both directions have none
            llama_cpp.llama_memory_clear(self._memory, False)
        bounds = np.cumsum([len(text) for text in group])[:-1]
        return [_normalized(self._pooled(part)) for part in np.split(np.concatenate(pieces), bounds)]

    def _decode(self, tokens: list[int], positions: list[int], sequences: list[int], adapters: AdapterSet) -> Matrix:
        library_log().clear()
        batch = self._batch.fill(tokens, positions, sequences, [True] * len(tokens))
        with self._adapters.active(self._context, adapters):
            status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            if self._memory is not None:
                llama_cpp.llama_memory_clear(self._memory, False)
            raise EngineFailed(f"llama_decode failed with status {status} ({library_log().last_errors()})")
        embeddings = llama_cpp.llama_get_embeddings(self._context)
        return np.array(np.ctypeslib.as_array(embeddings, shape=(len(tokens), self._size)))

    def _pooled(self, tokens: Matrix) -> Matrix:
        if self._pooling is PoolingType.CLS:
            return np.asarray(tokens[0])
        if self._pooling is PoolingType.LAST:
            return np.asarray(tokens[-1])
        return np.asarray(tokens.mean(axis=0), dtype=np.float32)


def pooling_of(model: Model) -> PoolingType:
    """Return how the file says that the vectors of a text's tokens become one; MEAN where it says nothing."""
    named = model.metadata(f"{model.architecture}.pooling_type")
    pooling = (
        PoolingType(int(named)) if named and named.isdigit() and int(named) in list(PoolingType) else PoolingType.NONE
    )
    return PoolingType.MEAN if pooling is PoolingType.NONE else pooling


def _normalized(vector: Matrix) -> Matrix:
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
