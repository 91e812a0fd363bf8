"""Embeddings: one pass over many texts, padded, pooled with the attention mask, L2-normalised."""

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.jobs.job import Text
from workers.engines.transformers.loading.model import LoadedModel
from workers.engines.transformers.vocabulary import TransformersVocabulary

MAX_TEXTS = 32  # in one pass
MAX_PADDED_TOKENS = 4096  # of one pass, padding included; a longer text goes alone


class Pooling(StrEnum):
    """How a text's tokens become one vector, as `1_Pooling/config.json` of a sentence-transformers folder names it."""

    MEAN = "pooling_mode_mean_tokens"
    CLS = "pooling_mode_cls_token"
    LAST = "pooling_mode_lasttoken"


class TransformersEmbedder:
    """One thread at a time; may run beside the generation of the same model. max_tokens: of one text."""

    def __init__(self, loaded: LoadedModel, vocabulary: TransformersVocabulary, max_tokens: int) -> None:
        model = loaded.model
        has_head = model.get_output_embeddings() is not None
        self._model = model.base_model if has_head else model
        self._options = {"use_cache": False} if has_head else {}
        self._device = loaded.device
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._pooling = pooling_of(loaded.source.folder)

    def embed(self, texts: Sequence[Text], *, first: int = 0) -> list[tuple[list[float], int]]:
        """See `Engine.embed`."""
        to_tokens = self._vocabulary.text_to_embed
        read = [to_tokens(text, f"text.{index}", self._max_tokens) for index, text in enumerate(texts, first)]
        vectors: dict[int, list[float]] = {}
        for group in _groups([len(tokens) for tokens in read]):
            vectors |= dict(zip(group, self._run([read[index] for index in group]).tolist(), strict=True))
        return [(vectors[index], len(tokens)) for index, tokens in enumerate(read)]

    @torch.inference_mode()
    def _run(self, texts: Sequence[list[int]]) -> Tensor:
        """Padded on the right, where a model that reads from left to right never looks."""
        width = max(len(text) for text in texts)
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=self._device)
        lengths = torch.tensor([len(text) for text in texts], device=self._device)
        mask = torch.arange(width, device=self._device) < lengths[:, None]
        states = self._model(input_ids=ids, attention_mask=mask.long(), **self._options).last_hidden_state.float()
        return torch.nn.functional.normalize(self._pooled(states, mask.to(states.device)), dim=-1)

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        if self._pooling is Pooling.CLS:
            return states[:, 0]
        lengths = mask.sum(dim=1)
        if self._pooling is Pooling.LAST:
            return states[torch.arange(len(states), device=states.device), lengths - 1]
        return states.masked_fill(~mask[..., None], 0).sum(dim=1) / lengths[:, None]


def pooling_of(folder: Path) -> Pooling:
    """Return the pooling that a sentence-transformers folder names; else the mean."""
    try:
        settings: dict[str, Any] = json.loads((folder / "1_Pooling" / "config.json").read_text())
    except (OSError, ValueError):
        return Pooling.MEAN
    return next((pooling for pooling in Pooling if settings.get(pooling)), Pooling.MEAN)


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of about the same length share a pass."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if group and (len(group) == MAX_TEXTS or (len(group) + 1) * lengths[index] > MAX_PADDED_TOKENS):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
