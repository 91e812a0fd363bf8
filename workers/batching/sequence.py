"""One request inside the batch: its tokens, its text, its place in the cache, and how it ended."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from app.errors import EngineFailed, JobTimeout, LLMAPIError
from app.jobs.job import FinishReason, JobError, Status, TokenLogprob, Usage
from workers.batching.detokenizer import Detokenizer
from workers.batching.ngram_lookup import NgramLookup
from workers.engines.base import Chunk, Prompt, Sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    status: Status
    finish_reason: FinishReason
    error: JobError | None = None


@dataclass(slots=True, kw_only=True)
class Update:
    """What one step brought to one sequence: text and logprobs to publish, the tokens behind them, and the end."""

    sequence: "BatchSequence"
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeState:
    """What another worker has made of a sequence: its tokens, their pieces, and the text it has published of them."""

    tokens: list[int]
    pieces: list[bytes]
    text: str


class BatchSequence:
    """A prompt and what it has grown into. Moved only by the batch loop.

    `position` counts the tokens whose keys and values are in the cache. A sequence with something `earlier` goes on
    from there: the tokens are prefilled like the prompt's.

    key: sequences with the same key have the same tokens, so one of them is computed and the others follow it
    (`workers.batching.request_coalescing`); None: this one has a computation of its own.
    """

    def __init__(
        self,
        sequence_id: str,
        prompt: Prompt,
        *,
        timeout_seconds: float = 600.0,
        earlier: ResumeState | None = None,
        key: str | None = None,
    ) -> None:
        self.id = sequence_id
        self.key = key
        self.has_joined = False
        self.prompt = prompt
        self.slot: int | None = None
        self.position = 0
        self.generated: list[int] = []
        self.cached_tokens = 0
        self.told_usage: Usage | None = None  # by whoever answers a prompt that is `elsewhere`
        self.earlier_text = "" if earlier is None else earlier.text
        self.lookup: NgramLookup | None = None  # hears of each token from the time on when somebody wants guesses
        self.cancel_requested = False
        self.outcome: Outcome | None = None
        self.submitted_at = time.monotonic()
        self.first_token_at: float | None = None
        self.ended_at: float | None = None
        self._deadline = self.submitted_at + timeout_seconds
        self._max_tokens = prompt.sampling.max_tokens
        if prompt.sampling.max_length is not None:
            self._max_tokens = min(self._max_tokens, prompt.sampling.max_length - len(prompt.tokens))
        self._text = Detokenizer(prompt.sampling.stop)
        self._token_starts: list[int] = []  # where each generated token's text begins
        self._echoed = False
        self._prefix = prompt.tokens
        self._given = 0  # tokens it came with
        self._overshoot = 0  # characters held back here that have been published earlier
        self._was_over = False
        if earlier is not None:
            self._resume(earlier)

    @property
    def prefix(self) -> list[int]:
        """The tokens to prefill: the prompt's, and earlier ones."""
        return self._prefix

    @property
    def computed(self) -> list[int]:
        """The tokens whose keys and values are in the cache."""
        return [*self.prompt.tokens, *self.generated][: self.position]

    @property
    def may_skip_prefill(self) -> bool:
        """Prefixes are no use where the logits of the prompt itself are asked for."""
        return self._echoed or not (self.prompt.sampling.echo and self.prompt.sampling.logprobs is not None)

    def begin_with(self, tokens: int) -> None:
        """So many tokens of the prefix are in the cache already."""
        self.position = tokens
        self.cached_tokens = min(tokens, len(self.prompt.tokens))

    @property
    def is_prefilling(self) -> bool:
        return self.position < len(self._prefix)

    @property
    def new_tokens(self) -> int:
        """Tokens generated here, not earlier, and not before it joined."""
        return len(self.generated) - self._given

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def tokens_left(self) -> int:
        """Tokens that may still come, as far as `max_tokens` goes."""
        return self._max_tokens - len(self.generated)

    @property
    def usage(self) -> Usage:
        """Of a prompt that is `elsewhere`, what was told; untold, the pieces that came, each a token or more."""
        if self.prompt.elsewhere:
            return self.told_usage or Usage(completion_tokens=len(self.generated))
        return Usage(
            prompt_tokens=len(self.prompt.tokens),
            completion_tokens=len(self.generated),
            cached_tokens=self.cached_tokens,
        )

    def next_chunk(self, budget: int, draft: Sequence[int] = ()) -> Chunk:
        """The tokens of this sequence's next step: one to decode and the draft, or up to `budget` of its prompt."""
        assert self.slot is not None
        prefill = self._prefix[self.position : self.position + budget]
        tokens = prefill or [self.generated[-1], *draft]
        return Chunk(
            slot=self.slot,
            tokens=tokens,
            position=self.position,
            samples=self.position + len(tokens) >= len(self._prefix),
            prompt=self.prompt,
            generated=self.generated,
            drafted=len(draft),
        )

    def advance(self, sampled: Sampled, context_tokens: int) -> Update:
        """Take the token that a step has chosen."""
        if sampled.error is not None:
            return self.fail(sampled.error)
        self.told_usage = sampled.usage or self.told_usage
        update = Update(sequence=self, logprobs=list(sampled.prompt_logprobs))
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        if not self._echoed:
            self._echoed = True
            update.text = self.prompt.echo_text
        if self._max_tokens <= 0:  # only the prompt's own logprobs were asked for
            return self._end(update, Outcome(status=Status.SUCCEEDED, finish_reason=FinishReason.LENGTH))
        if sampled.ends:
            update.text += self._finish()
            reason = sampled.last or FinishReason.STOP
            return self._end(update, Outcome(status=Status.SUCCEEDED, finish_reason=reason))
        self._take(sampled, update)
        if self._text.stopped:
            self._drop_stopped_logprobs(update)
            return self._end(update, Outcome(status=Status.SUCCEEDED, finish_reason=FinishReason.STOP))
        if sampled.last is not None:
            update.text += self._finish()
            return self._end(update, Outcome(status=Status.SUCCEEDED, finish_reason=sampled.last))
        full = len(self.prompt.tokens) + len(self.generated) >= context_tokens
        if full or len(self.generated) >= self._max_tokens:
            update.text += self._finish()
            return self._end(update, Outcome(status=Status.SUCCEEDED, finish_reason=FinishReason.LENGTH))
        return update

    def follow(self, leader: "BatchSequence") -> None:
        """Share what `leader`, which is computed, has and will have. The prompt of this sequence is needed no more."""
        self.has_joined = True
        self.prompt, self._prefix, self._text = leader.prompt, leader.prefix, leader._text
        self.generated, self._token_starts = leader.generated, leader._token_starts
        self.cached_tokens = len(self.prompt.tokens)
        self._given = len(self.generated)

    def mirror(self, update: Update) -> Update:
        """What a step brought to the leader, for this sequence, which follows it."""
        if self.first_token_at is None and (update.tokens or update.text):
            self.first_token_at = time.monotonic()
        own = replace(update, sequence=self, outcome=None)
        return own if update.outcome is None else self._end(own, update.outcome)

    def take_place_of(self, leader: "BatchSequence") -> None:
        """Go on where `leader`, which this sequence follows, has got to."""
        self.slot, self.position, self._echoed = leader.slot, leader.position, leader._echoed
        self.cached_tokens = min(self.position, len(self.prompt.tokens))

    def interrupted(self) -> Update | None:
        """The end of a sequence that was canceled, has run out of time or was over when it came; None while it may go
        on.
        """
        if self.cancel_requested:
            outcome = Outcome(status=Status.CANCELED, finish_reason=FinishReason.CANCELED)
        elif time.monotonic() > self._deadline:
            error = JobTimeout("the job ran longer than its timeout; ask for fewer tokens or raise `timeout`")
            outcome = Outcome(status=Status.FAILED, finish_reason=FinishReason.TIMEOUT, error=job_error(error))
        elif self._was_over:
            reason = FinishReason.STOP if self._text.stopped else FinishReason.LENGTH
            outcome = Outcome(status=Status.SUCCEEDED, finish_reason=reason)
        else:
            return None
        return self._end(Update(sequence=self, text=self._finish()), outcome)

    def fail(self, error: Exception) -> Update:
        outcome = Outcome(status=Status.FAILED, finish_reason=FinishReason.ERROR, error=job_error(error))
        return self._end(Update(sequence=self, text=self._finish()), outcome)

    def _resume(self, earlier: ResumeState) -> None:
        self._prefix = [*self.prompt.tokens, *earlier.tokens]
        self._given = len(earlier.tokens)
        self._echoed = True
        text = self.prompt.echo_text
        for token, piece in zip(earlier.tokens, earlier.pieces, strict=True):
            self.generated.append(token)
            self._token_starts.append(self._text.length)
            text += self._text.feed(piece)
        self._overshoot = max(0, len(earlier.text) - len(text))
        self._was_over = self._text.stopped or len(self.generated) >= self._max_tokens

    def _finish(self) -> str:
        """The text held back, less what an earlier attempt has published of it in its last words."""
        return self._text.finish()[self._overshoot :]

    def _take(self, sampled: Sampled, update: Update) -> None:
        self.generated.append(sampled.token)
        if self.lookup is not None:
            self.lookup.take(sampled.token)
        self._token_starts.append(self._text.length)
        update.tokens.append(sampled.token)
        if sampled.logprobs is not None:
            update.logprobs.append(sampled.logprobs)
        update.text += self._text.feed(sampled.piece)

    def _drop_stopped_logprobs(self, update: Update) -> None:
        """The last token's logprobs go when none of its text is left; earlier ones were published with their step."""
        if update.logprobs and self._token_starts[-1] >= self._text.length:
            update.logprobs.pop()

    def _end(self, update: Update, outcome: Outcome) -> Update:
        self.outcome = update.outcome = outcome
        self.ended_at = time.monotonic()
        self.generated = list(self.generated)  # who shares it may go on
        return update


def job_error(error: Exception) -> JobError:
    """What the job record says of an error; one of ours keeps its code, anything else is the engine's."""
    if not isinstance(error, LLMAPIError):
        error = EngineFailed(f"the engine failed on this request ({type(error).__name__}); the worker's log says more")
    return JobError(
        code=error.code,
        message=error.detail,
        errors={name: list(messages) for name, messages in error.errors.items()},
    )
