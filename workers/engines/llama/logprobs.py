"""Log-probabilities of tokens, by numpy."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.jobs.job import TokenLogprob
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.logprobs import token_logprob

Row = npt.NDArray[np.float32]


def token_logprobs(
    rows: Sequence[Row] | Row, tokens: Sequence[int], rivals: int, vocabulary: LlamaVocabulary
) -> list[TokenLogprob]:
    """Natural logarithms under the softmax of each row (`[vocabulary]`), with the `rivals` likeliest tokens."""
    return [_token_logprob(row, token, rivals, vocabulary) for row, token in zip(rows, tokens, strict=False)]


def _token_logprob(row: Row, token: int, rivals: int, vocabulary: LlamaVocabulary) -> TokenLogprob:
    highest = float(row.max())
    normalizer = highest + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))
    likeliest = ((rival, float(row[rival]) - normalizer) for rival in _likeliest(row, rivals))
    return token_logprob(token, float(row[token]) - normalizer, likeliest, vocabulary)


def _likeliest(row: Row, count: int) -> list[int]:
    count = min(count, len(row))
    if count <= 0:
        return []
    unordered = np.argpartition(row, -count)[-count:]
    ordered: list[int] = unordered[np.argsort(-row[unordered], kind="stable")].tolist()
    return ordered
