"""Whose prompts a step computes and how many of their tokens, so that one client's prompt does not hold up another's.

A client alone gets steps of full size. While clients share the model, a step computes at most as many tokens of prompts
as take `STEP_SECONDS`, and after a long one the tenant of those prompts rests for as long if others have work. So
they take half of the time at most, and a request that comes meanwhile goes before the rest of them.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import takewhile

from workers.batching.sequence import BatchSequence
from workers.engines.base import Chunk

STEP_SECONDS = 0.15
RESTS_AFTER_SECONDS = 0.05  # a shorter step holds up no stream: the others have had a token in it
CHUNK_TOKENS = 64  # a step has a multiple: llama.cpp's attention on CPUs takes as long for 32 tokens as for 64 ...
SMALL_CHUNK_TOKENS = 32  # ... but near the beginning of a prompt it takes hardly any time
SMALL_CHUNKS_BEFORE = 256  # tokens
SHARED_FOR_SECONDS = 10.0  # after the last step of another tenant, which may ask again


class PrefillTurns:
    """Turns that tenants take with their prompts. Used by the thread of the loop alone.

    most_tokens: of one step. clock: seconds.
    """

    def __init__(self, most_tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_tokens = most_tokens
        self._clock = clock
        self._stepped_at: dict[str, float] = {}  # by tenant, the least recent first
        self._rests_until: dict[str, float] = {}  # by tenant, while several share the model
        self._seconds_per_token = math.inf  # not known

    def next_prompts(self, stepping: Sequence[BatchSequence]) -> list[BatchSequence]:
        """Return the sequences whose prompts the next step continues: tenants whose turn is longest ago first, those of
        one tenant by arrival.

        stepping: all that could take part in the step.
        """
        now = self._note_tenants(stepping)
        turns = {tenant: self._rests_until.get(tenant, 0.0) for tenant in self._stepped_at}
        prefilling = [sequence for sequence in stepping if sequence.is_prefilling]
        prefilling.sort(key=lambda sequence: (turns[sequence.job.tenant], sequence.submitted_at))
        if not prefilling or len({sequence.job.tenant for sequence in stepping}) == 1:
            return prefilling
        ready = [sequence for sequence in prefilling if turns[sequence.job.tenant] <= now]
        if ready or len(prefilling) < len(stepping):
            return ready
        return [sequence for sequence in prefilling if sequence.job.tenant == prefilling[0].job.tenant]

    def budget(self, decoding: int, position: int) -> int:
        """Return how many tokens of prompts the next step may compute.

        decoding: sequences that decode in the same step. llama.cpp computes the first token of all sequences, and then
        the rest of a prompt: beside them it has one token more, so that this rest is a full chunk.
        position: where the first prompt continues.
        """
        left = self._most_tokens - decoding
        if len(self._stepped_at) <= 1:
            return left
        chunks = int(STEP_SECONDS / self._seconds_per_token) // CHUNK_TOKENS
        small = SMALL_CHUNK_TOKENS if position < SMALL_CHUNKS_BEFORE else CHUNK_TOKENS
        return min(left, (chunks * CHUNK_TOKENS or small) + bool(decoding))

    def learn(self, planned: Sequence[tuple[BatchSequence, Chunk]], seconds: float) -> None:
        """Note how long a step took."""
        prompts = [(s.job.tenant, len(chunk.tokens)) for s, chunk in planned if chunk.position < len(s.prefix)]
        tokens = sum(length for _, length in prompts)
        if tokens >= SMALL_CHUNK_TOKENS:
            measured = seconds / tokens
            known = math.isfinite(self._seconds_per_token)
            self._seconds_per_token = (measured + self._seconds_per_token) / 2 if known else measured
        if len(self._stepped_at) > 1 and seconds >= RESTS_AFTER_SECONDS:
            now = self._clock()
            for tenant, length in prompts:
                self._rests_until[tenant] = max(now, self._rests_until.get(tenant, now)) + seconds * length / tokens

    def _note_tenants(self, stepping: Sequence[BatchSequence]) -> float:
        """Note whose sequences step now, and forget tenants that have not stepped for long. Returns the time."""
        now = self._clock()
        for tenant in {sequence.job.tenant for sequence in stepping}:
            self._stepped_at.pop(tenant, None)
            self._stepped_at[tenant] = now
        long_ago = now - SHARED_FOR_SECONDS
        for tenant in [*takewhile(lambda one: self._stepped_at[one] < long_ago, self._stepped_at)]:
            del self._stepped_at[tenant]
            self._rests_until.pop(tenant, None)
        return now
