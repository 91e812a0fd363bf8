"""How long a step takes, learned from the steps that have run."""


class DraftedSlots:
    """Slots whose sequences have guesses, all equally many, in a step that decodes; counts its groups.

    llama.cpp computes the first rows of all sequences together, then the further rows of each block of neighbouring
    slots by themselves (`llama_batch_allocr::split_equal`).
    """

    def __init__(self) -> None:
        self._slots: set[int] = set()
        self._blocks = 0

    def add(self, slot: int) -> None:
        self._blocks += 1 - (slot - 1 in self._slots) - (slot + 1 in self._slots)
        self._slots.add(slot)

    def groups(self, sequences: int) -> int:
        """Return how many groups of rows the step of so many sequences has."""
        return 1 if len(self._slots) in (0, sequences) else 1 + self._blocks


class StepCost:
    """A linear model of step time: a cost per group of rows that are computed together plus a cost per row.

    Fitted by normalised least mean squares: each measured step corrects both costs. Until steps of several rows were
    measured, a row counts as cheap, so that guesses are tried.
    """

    FIRST_GROUP = 9.0  # of a row's cost
    LEARNING_RATE = 0.1  # the first steps of several rows teach more
    LARGEST_SURPRISE = 0.5  # as a share of the expected time, so that an interrupted step counts little
    LEAST_GROUP = 0.4  # of a row's cost; otherwise noise could make drafts so expensive that none is tried again

    def __init__(self) -> None:
        self.group = self.row = 0.0
        self._learned = 1  # steps of several rows

    def seconds(self, groups: int, rows: int) -> float:
        return self.group * groups + self.row * rows

    def learn(self, groups: int, rows: int, seconds: float) -> None:
        expected = self.seconds(groups, rows)
        if not expected:
            self.row = seconds / (self.FIRST_GROUP * groups + rows)
            self.group = self.FIRST_GROUP * self.row
            return
        surprise = min(max(seconds - expected, -self.LARGEST_SURPRISE * expected), self.LARGEST_SURPRISE * expected)
        if rows == groups:  # the speed of the machine: it does not show which of the two costs has changed
            factor = 1 + self.LEARNING_RATE * surprise / expected
            self.group, self.row = self.group * factor, self.row * factor
            return
        self._learned += 1
        correction = max(self.LEARNING_RATE, 1 / self._learned) * surprise / (groups**2 + rows**2)
        self.row = max(0.0, self.row + correction * rows)
        self.group = max(self.LEAST_GROUP * self.row, self.group + correction * groups)
