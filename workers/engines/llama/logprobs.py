"""Log-probabilities of tokens, from logits as the model gave them: before bias, penalties and temperature."""

import numpy as np
import numpy.typing as npt

from app.jobs.job import TokenLogprob
from workers.engines.llama.vocabulary import LlamaVocabulary

IMPOSSIBLE = -9999.0  # instead of -inf, which JSON does not have; OpenAI's number

Row = npt.NDArray[np.float32]


def token_logprob(row: Row, token: int, rivals: int, vocabulary: LlamaVocabulary) -> TokenLogprob:
    """Natural logarithms under the softmax of `row` (`[vocabulary]`), with the `rivals` likeliest tokens."""
    normalizer = _log_sum_exp(row)

    def logprob(of: int) -> float:
        return max(float(row[of]) - normalizer, IMPOSSIBLE)

    top: dict[str, float] = {}
    for rival in _likeliest(row, rivals):
        # Two tokens may be the same text; the likeliest keeps the name.
        top.setdefault(vocabulary.text(rival), logprob(rival))
    return TokenLogprob(token=vocabulary.text(token), logprob=logprob(token), top=top)


def _log_sum_exp(row: Row) -> float:
    highest = float(row.max())
    return highest + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))


def _likeliest(row: Row, count: int) -> list[int]:
    count = min(count, len(row))
    if count <= 0:
        return []
    found = np.argpartition(row, -count)[-count:]
    ordered: list[int] = found[np.argsort(-row[found], kind="stable")].tolist()
    return ordered
