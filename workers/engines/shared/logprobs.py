"""Log-probabilities of tokens, from logits as the model gave them: before bias, penalties and temperature."""

from collections.abc import Callable, Iterable
from typing import Any

from app.jobs.job import TokenLogprob
from workers.engines.base import Chunk
from workers.engines.shared.vocabulary import Vocabulary

IMPOSSIBLE = -9999.0  # instead of -inf, which JSON does not have; OpenAI's number


def token_logprob(
    token: int, logprob: float, likeliest: Iterable[tuple[int, float]], vocabulary: Vocabulary
) -> TokenLogprob:
    """Return a token's entry.

    Args:
        likeliest: the rivals and their natural logarithms, the likeliest first.
    """
    top: dict[str, float] = {}
    for rival, value in likeliest:
        # Two tokens may be the same text; the likeliest keeps the name.
        top.setdefault(vocabulary.text(rival), max(value, IMPOSSIBLE))
    return TokenLogprob(token=vocabulary.text(token), logprob=max(logprob, IMPOSSIBLE), top=top)


def explains_prompt(chunk: Chunk) -> bool:
    """Are log-probabilities of the prompt's tokens wanted, and does the chunk hold some of them?"""
    sampling = chunk.prompt.sampling
    return sampling.echo and sampling.logprobs is not None and chunk.position < len(chunk.prompt.tokens)


def prompt_logprobs(
    chunk: Chunk, logits: Any, vocabulary: Vocabulary, token_logprobs: Callable[..., list[TokenLogprob]]
) -> list[TokenLogprob]:
    """Return the entries of the prompt's tokens that the chunk's logits predict. Nothing predicts the first token.

    Args:
        logits: `[tokens of the chunk, vocabulary]`. Each row predicts the token after its own.
        token_logprobs: the family's, of (logits, the tokens they predict, number of rivals, vocabulary).
    """
    following = chunk.prompt.tokens[chunk.position + 1 : chunk.position + 1 + len(chunk.tokens)]
    first = [TokenLogprob(token=vocabulary.text(chunk.tokens[0]), logprob=None)] if chunk.position == 0 else []
    return first + token_logprobs(logits, following, chunk.prompt.sampling.logprobs or 0, vocabulary)
