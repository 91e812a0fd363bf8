"""The next tokens of a sequence, guessed from those it has: it may repeat what followed the same tokens before.

Prompt lookup decoding (https://github.com/apoorvumang/prompt-lookup-decoding): no second model, only an index.
"""

from collections.abc import Iterator, Sequence
from itertools import count

NGRAM_TOKENS = 3  # the last tokens must have stood somewhere before for there to be a guess
LONGEST_MATCH = 64  # tokens; longer ones are worth what these are
PRIOR_HITS = {2: 0.4, 3: 0.6, 4: 0.8, 5: 0.93, 6: 0.97, 7: 0.98}
"""How often the guessed token comes, by the bit length of the match's length: measured (decision 0016)."""
PRIOR_WEIGHT = 4.0  # against what the sequence itself has shown, in guesses


class NgramLookup:
    """The tokens of one sequence, and the place in them that it seems to repeat.

    Every token tests the guess before it, used or not: what guesses are worth is known before the first one costs
    anything.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        ngrams = zip(*(self._tokens[first:-1] for first in range(NGRAM_TOKENS)), strict=False)
        self._behind: dict[tuple[int, ...], int] = dict(zip(ngrams, count(NGRAM_TOKENS), strict=False))
        self._guess = 0  # where the guessed token stands
        self._matched = 0  # tokens before it that are also the last ones of all; 0: no guess
        self._hits = {size: rate * PRIOR_WEIGHT for size, rate in PRIOR_HITS.items()}
        self._trials = dict.fromkeys(PRIOR_HITS, PRIOR_WEIGHT)
        self._find()

    @property
    def has_guess(self) -> bool:
        return self._matched > 0

    def take(self, token: int) -> None:
        """Take the token that has come."""
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
        """Return the next tokens; beyond those that can be guessed the last period is repeated."""
        guesses = self._tokens[self._guess : self._guess + length]
        while len(guesses) < length:
            guesses += guesses[: length - len(guesses)]
        return guesses

    def expected_hits(self) -> Iterator[float]:
        """Yield how many of the first guess, of the first two, of the first three, ... will hold, on average."""
        chance, hits = 1.0, 0.0
        for matched in count(self._matched):
            size = min(matched, LONGEST_MATCH).bit_length()
            chance *= self._hits[size] / self._trials[size]
            hits += chance
            yield hits

    def _find(self) -> None:
        """Find where the last tokens stood before, the last time."""
        tokens = self._tokens
        self._guess = self._behind.get(tuple(tokens[-NGRAM_TOKENS:]), 0)
        if not self._guess:
            self._matched = 0
            return
        matched, longest = NGRAM_TOKENS, min(LONGEST_MATCH, self._guess)
        while matched < longest and tokens[self._guess - 1 - matched] == tokens[-1 - matched]:
            matched += 1
        self._matched = matched
