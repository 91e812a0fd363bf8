"""Guesses the next tokens of a sequence: they may repeat what followed the same tokens earlier in it.

Prompt lookup decoding (https://github.com/apoorvumang/prompt-lookup-decoding): no second model, only an index.
"""

from collections.abc import Iterator, Sequence
from itertools import count

NGRAM_TOKENS = 3  # a guess needs an earlier occurrence of this many last tokens
LONGEST_MATCH = 64  # tokens; longer matches count as this long
PRIOR_HITS = {2: 0.4, 3: 0.6, 4: 0.8, 5: 0.93, 6: 0.97, 7: 0.98}
"""How often a guess is right, by the bit length of the match's length: measured (decision 0016)."""
PRIOR_WEIGHT = 4.0  # in guesses, against the sequence's own hit rate


class NgramLookup:
    """The tokens of one sequence, and the position in them that it seems to repeat.

    Each new token is compared with the current guess, even when that guess was not used. So the hit rate is known
    before the first draft is verified.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        ngrams = zip(*(self._tokens[first:-1] for first in range(NGRAM_TOKENS)), strict=False)
        self._behind: dict[tuple[int, ...], int] = dict(zip(ngrams, count(NGRAM_TOKENS), strict=False))
        self._guess = 0  # index of the guessed token
        self._matched = 0  # tokens before it that equal the last ones; 0: no guess
        self._hits = {size: rate * PRIOR_WEIGHT for size, rate in PRIOR_HITS.items()}
        self._trials = dict.fromkeys(PRIOR_HITS, PRIOR_WEIGHT)
        self._find()

    @property
    def has_guess(self) -> bool:
        return self._matched > 0

    def take(self, token: int) -> None:
        """Add the next token of the sequence."""
        tokens = self._tokens
        hit = self._matched and tokens[self._guess] == token
        if self._matched:
            size = self._matched.bit_length()
            self._trials[size] += 1
            self._hits[size] += hit
        self._behind[tuple(tokens[-NGRAM_TOKENS:])] = len(tokens)
        tokens.append(token)
        if hit:
            self._guess += 1
            self._matched = min(self._matched + 1, LONGEST_MATCH)
        else:
            self._find()

    def guesses(self, length: int) -> list[int]:
        """Return the guessed tokens; a guess that reaches the end of the known tokens repeats itself."""
        guesses = self._tokens[self._guess : self._guess + length]
        while len(guesses) < length:
            guesses += guesses[: length - len(guesses)]
        return guesses

    def expected_hits(self) -> Iterator[float]:
        """Yield how many of the first guess, the first two, the first three, ... will be right, on average."""
        chance, hits = 1.0, 0.0
        for matched in count(self._matched):
            size = min(matched, LONGEST_MATCH).bit_length()
            chance *= self._hits[size] / self._trials[size]
            hits += chance
            yield hits

    def _find(self) -> None:
        """Find the latest earlier occurrence of the last tokens."""
        tokens = self._tokens
        self._guess = self._behind.get(tuple(tokens[-NGRAM_TOKENS:]), 0)
        if not self._guess:
            self._matched = 0
            return
        matched, longest = NGRAM_TOKENS, min(LONGEST_MATCH, self._guess)
        while matched < longest and tokens[self._guess - 1 - matched] == tokens[-1 - matched]:
            matched += 1
        self._matched = matched
