"""The tokens that a draft model has guessed for one sequence, and how often its guesses hold."""

from bisect import bisect
from collections import deque

from workers.engines.base import Guess

CONFIDENCES = (0.3, 0.6, 0.8, 0.9, 0.97)  # bounds of the classes of guesses: the draft model's own probability
PRIOR_RATES = (0.15, 0.4, 0.65, 0.8, 0.92, 0.98)  # by class, where nothing was measured yet
PRIOR_MEAN = 0.75
PRIOR_WEIGHT = 4.0  # in guesses, against what is measured
MOST_WEIGHT = 64.0  # guesses of a class that count; older ones are forgotten
MOST_WEIGHT_OF_MEAN = 16.0
FADING = 1 / 512  # a token without a guess moves the mean so far to where it began: a new attempt will be made


class HitRates:
    """The share of guesses that hold: by the confidence of the draft model, and of all.

    start: the rates to begin with; None: `PRIOR_RATES`.
    """

    def __init__(self, start: "HitRates | None" = None) -> None:
        rates: list[float] = [*PRIOR_RATES, PRIOR_MEAN]
        if start is not None:
            rates = [hits / tested for hits, tested in start._counts]
        self._first_mean = rates[-1]
        self._counts: list[list[float]] = [
            [rate * PRIOR_WEIGHT, PRIOR_WEIGHT] for rate in rates
        ]  # hits, guesses; the last is of all

    @property
    def mean(self) -> float:
        hits, tested = self._counts[-1]
        return hits / tested

    def of(self, guess: Guess) -> float:
        hits, tested = self._counts[bisect(CONFIDENCES, guess.probability)]
        return hits / tested

    def learn(self, guess: Guess, *, held: bool) -> None:
        of_class = self._counts[bisect(CONFIDENCES, guess.probability)]
        for count, most in ((of_class, MOST_WEIGHT), (self._counts[-1], MOST_WEIGHT_OF_MEAN)):
            count[0] += held
            count[1] += 1
            if count[1] > most:
                count[:] = count[0] / 2, count[1] / 2

    def fade(self) -> None:
        """Note a token that no guess was tested with."""
        count = self._counts[-1]
        count[0] += FADING * (self._first_mean * count[1] - count[0])


class DraftGuesses:
    """Guesses that the next tokens of the sequence test, whether they join a step or not.

    shared: rates of all sequences, which learn from this one and are its first.
    """

    def __init__(self, shared: HitRates) -> None:
        self._shared = shared
        self._rates = HitRates(shared)
        self._guesses: deque[Guess] = deque()
        self.expected_hits: list[float] = []  # of the first guess, the first two, ..., on average
        self.chance = 1.0  # that all hold

    @property
    def tokens(self) -> list[int]:
        return [guess.token for guess in self._guesses]

    @property
    def next_chance(self) -> float:
        """The chance that one guess more would hold, with all before it."""
        return self.chance * self._rates.mean

    def hits(self, length: int) -> float:
        """Return how many guesses of so many are expected to hold, before they are made."""
        mean = self._rates.mean
        return float(length) if mean >= 1 else mean * (1 - mean**length) / (1 - mean)

    def begin(self) -> None:
        """Drop the guesses: new ones follow."""
        self._guesses.clear()
        self.expected_hits.clear()
        self.chance = 1.0

    def add(self, guess: Guess) -> None:
        self._guesses.append(guess)
        self.chance *= self._rates.of(guess)
        self.expected_hits.append((self.expected_hits[-1] if self.expected_hits else 0.0) + self.chance)

    def take(self, token: int) -> None:
        """Test the first guess with the next token of the sequence."""
        if not self._guesses:
            self._rates.fade()
            self._shared.fade()
            return
        guess = self._guesses.popleft()
        held = guess.token == token
        self._rates.learn(guess, held=held)
        self._shared.learn(guess, held=held)
        if not held:
            self._guesses.clear()
