"""Sequences with the same tokens: one is computed, the leader, and the others follow it. Pure, and the loop's alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from workers.batching.sequence import BatchSequence, Update


@dataclass(slots=True)
class _Company:
    """told: what the leader has brought so far."""

    key: str
    leader: BatchSequence
    followers: list[BatchSequence] = field(default_factory=list)
    told: list[Update] = field(default_factory=list)


class RequestCoalescer:
    """A sequence leads when it comes first with its key; whoever comes with that key before its end follows.

    Every follower gets all that its leader gets, and ends with it. A leader that is interrupted leaves its place, its
    slot and what it has computed to its first follower.
    """

    def __init__(self) -> None:
        self._companies: dict[str, _Company] = {}
        self.count = 0

    def __iter__(self) -> Iterator[BatchSequence]:
        for company in self._companies.values():
            yield from company.followers

    def join(self, sequence: BatchSequence) -> Update | None:
        """All that its leader has brought, for a sequence that follows from now on; None: it is to be computed."""
        if sequence.key is None:
            return None
        company = self._companies.get(sequence.key)
        if company is None:
            self._companies[sequence.key] = _Company(sequence.key, sequence)
            return None
        sequence.follow(company.leader)
        company.followers.append(sequence)
        self.count += 1
        return sequence.mirror(_merged(company))

    def spread(self, updates: Iterable[Update]) -> list[Update]:
        """What a step brought to leaders, for those who follow them."""
        found: list[Update] = []
        for update in updates:
            company = self._led_by(update.sequence)
            if company is None:
                continue
            company.told.append(update)
            found += [follower.mirror(update) for follower in company.followers]
            if update.outcome is not None:
                del self._companies[company.key]
                self.count -= len(company.followers)
        return found

    def end_interrupted(self) -> list[Update]:
        """RequestCoalescer that were canceled or ran out of time leave, with what they have."""
        updates = []
        for company in self._companies.values():
            for follower in list(company.followers):
                update = follower.interrupted()
                if update is not None:
                    updates.append(update)
                    self._remove(company, follower)
        return updates

    def successions(self) -> Iterator[tuple[Update, BatchSequence]]:
        """The end of each leader that is interrupted and has followers, and the one that goes on in its place."""
        for company in self._companies.values():
            leader = company.leader
            update = leader.interrupted() if company.followers else None
            if update is not None:
                company.leader = heir = company.followers[0]
                self._remove(company, heir)
                heir.take_place_of(leader)
                yield update, heir

    def _led_by(self, sequence: BatchSequence) -> _Company | None:
        company = None if sequence.key is None else self._companies.get(sequence.key)
        return company if company is not None and company.leader is sequence else None

    def _remove(self, company: _Company, follower: BatchSequence) -> None:
        company.followers.remove(follower)
        self.count -= 1


def _merged(company: _Company) -> Update:
    return Update(
        sequence=company.leader,
        text="".join(update.text for update in company.told),
        tokens=[token for update in company.told for token in update.tokens],
        logprobs=[entry for update in company.told for entry in update.logprobs],
    )
