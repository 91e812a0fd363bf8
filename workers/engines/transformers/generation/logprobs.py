"""Log-probabilities of tokens, by torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from app.jobs.job import TokenLogprob
from workers.engines.shared.logprobs import token_logprob
from workers.engines.transformers.vocabulary import TransformersVocabulary


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], rivals: int, vocabulary: TransformersVocabulary
) -> list[TokenLogprob]:
    """Natural logarithms under the softmax of each row (`[tokens, vocabulary]`), with the `rivals` likeliest tokens."""
    if not tokens:
        return []
    logprobs = logits[: len(tokens)].float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logprobs.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(rivals, logprobs.shape[-1]), dim=-1)
    rows = zip(tokens, chosen, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        token_logprob(token, value, zip(ids, values, strict=True), vocabulary) for token, value, ids, values in rows
    ]
