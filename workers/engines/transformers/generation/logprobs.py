"""Log-probabilities of tokens, from logits as the model gave them: before bias, penalties and temperature."""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.jobs.job import TokenLogprob
from workers.engines.transformers.vocabulary import TransformersVocabulary

IMPOSSIBLE = -9999.0  # instead of -inf, which JSON does not have; OpenAI's number


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], rivals: int, vocabulary: TransformersVocabulary
) -> list[TokenLogprob]:
    """Natural logarithms under the softmax of each row (`[tokens, vocabulary]`), with the `rivals` likeliest tokens."""
    if not tokens:
        return []
    logprobs = logits[: len(tokens)].float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logprobs.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(rivals, logprobs.shape[-1]), dim=-1)
    found = zip(tokens, chosen, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        _logprob(token, value, dict(zip(ids, values, strict=True)), vocabulary) for token, value, ids, values in found
    ]


def _logprob(token: int, value: float, likeliest: dict[int, float], vocabulary: TransformersVocabulary) -> TokenLogprob:
    top: dict[str, float] = {}
    for rival, logprob in likeliest.items():
        # Parts of UTF-8 characters may look alike; the likeliest keeps the name.
        top.setdefault(vocabulary.text(rival), max(logprob, IMPOSSIBLE))
    return TokenLogprob(token=vocabulary.text(token), logprob=max(value, IMPOSSIBLE), top=top)
