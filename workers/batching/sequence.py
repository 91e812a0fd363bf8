"""One request inside the batch: its tokens, its text, its position in the cache, and its outcome."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs.events import Delta
from app.jobs.job import AdapterUse, FinishReason, Status, TokenLogprob, Usage
from workers.batching.detokenizer import Detokenizer
from workers.batching.draft_guesses import DraftGuesses
from workers.batching.ngram_lookup import NgramLookup
from workers.engines.base import Chunk, Limits, Prompt, Sampled
from workers.engines.runner import Run, RunnerJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeState:
    """The output of an earlier attempt at a sequence: its tokens, their pieces, and the text that it published."""

    tokens: list[int]
    pieces: list[bytes]
    text: str


class BatchSequence(Run):
    """A prompt and the tokens generated for it. Changed only by the batch loop.

    `position` counts the tokens whose keys and values are in the cache. A sequence with `earlier` output continues
    after it: the earlier tokens are prefilled like those of the prompt.
    """

    def __init__(self, job: RunnerJob, prompt: Prompt, *, earlier: ResumeState | None = None) -> None:
        super().__init__(job)
        self.id = job.id
        self.prompt = prompt
        self.slot: int | None = None
        self.position = 0
        self.generated: list[int] = []
        self.cached_tokens = 0
        self.lookup: NgramLookup | None = None  # gets each token, from the first request for guesses on
        self.draft_guesses: DraftGuesses | None = None  # gets each token too, from the first guess of a model on
        self._max_tokens = prompt.sampling.max_tokens
        if prompt.sampling.max_length is not None:
            self._max_tokens = min(self._max_tokens, prompt.sampling.max_length - len(prompt.tokens))
        self._text = Detokenizer(prompt.sampling.stop)
        self._echoed = False
        self._prefix = prompt.tokens
        self._resumed_tokens = 0  # tokens of earlier attempts
        self._characters_already_published = 0  # of those that are held back here
        self._ended_earlier = False
        if earlier is not None:
            self._resume(earlier)

    @property
    def held_slot(self) -> int:
        """The slot of a running sequence."""
        assert self.slot is not None
        return self.slot

    @property
    def adapters(self) -> tuple[AdapterUse, ...]:
        """The LoRA adapters with which it is computed."""
        return self.job.request.adapters

    @property
    def prefix(self) -> list[int]:
        """The tokens to prefill: those of the prompt and of earlier attempts."""
        return self._prefix

    @property
    def computed(self) -> list[int]:
        """The tokens whose keys and values are in the cache."""
        return [*self.prompt.tokens, *self.generated][: self.position]

    @property
    def may_skip_prefill(self) -> bool:
        """False if the logits of the prompt are requested: a shared prefix has none."""
        return self._echoed or not (self.prompt.sampling.echo and self.prompt.sampling.logprobs is not None)

    def begin_with(self, tokens: int) -> None:
        """Count the first `tokens` of the prefix as computed: they are in the cache already."""
        self.position = tokens
        self.cached_tokens = min(tokens, len(self.prompt.tokens))

    @property
    def is_prefilling(self) -> bool:
        return self.position < len(self._prefix)

    @property
    def new_tokens(self) -> int:
        return len(self.generated) - self._resumed_tokens

    @property
    def tokens_left(self) -> int:
        """Tokens that may still be generated within `max_tokens`."""
        return self._max_tokens - len(self.generated)

    def has_room_for(self, guesses: int, limits: Limits) -> bool:
        """Return whether so many guesses are fewer than the tokens that may still be generated."""
        return guesses < min(self.tokens_left, limits.context_tokens - self.position)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.prompt.tokens),
            completion_tokens=len(self.generated),
            cached_tokens=self.cached_tokens,
        )

    def next_chunk(self, budget: int, draft: Sequence[int] = ()) -> Chunk:
        """Return the tokens of the next step: one to decode and the draft, or up to `budget` of the prompt."""
        prefill = self._prefix[self.position : self.position + budget]
        tokens = prefill or [self.generated[-1], *draft]
        return Chunk(
            slot=self.held_slot,
            tokens=tokens,
            position=self.position,
            samples=self.position + len(tokens) >= len(self._prefix),
            prompt=self.prompt,
            generated=self.generated,
            drafted=len(draft),
        )

    def advance(self, sampled: Sampled, context_tokens: int) -> Delta:
        """Add the token that a step has sampled; sets `outcome` if the sequence ends with it."""
        if sampled.error is not None:
            return self.fail(sampled.error)
        self.note_token()
        text, logprobs = "" if self._echoed else self.prompt.echo_text, tuple(sampled.prompt_logprobs)
        self._echoed = True
        if self._max_tokens <= 0:  # only the prompt's own logprobs are wanted
            self.end(Status.SUCCEEDED, FinishReason.LENGTH)
            return Delta(text, (), logprobs)
        if sampled.is_end_token or self._is_stop(sampled.token):
            self.end(Status.SUCCEEDED, sampled.finish_reason or FinishReason.STOP)
            return Delta(text + self._finish(), (), logprobs)
        return self._take(sampled, text, logprobs, context_tokens)

    def interrupted(self) -> Delta | None:
        """End the sequence if it was canceled, timed out or had ended in an earlier attempt; None: it continues."""
        if self.job.cancel_requested:
            self.end_canceled()
        elif time.monotonic() > self._deadline:
            self.end_timed_out()
        elif self._ended_earlier:
            self.end(Status.SUCCEEDED, FinishReason.STOP if self._text.stopped else FinishReason.LENGTH)
        else:
            return None
        return Delta(self._finish(), ())

    def fail(self, error: Exception) -> Delta:
        """End the sequence; returns the text that was held back."""
        self.end_failed(error)
        return Delta(self._finish(), ())

    def _resume(self, earlier: ResumeState) -> None:
        self._prefix = [*self.prompt.tokens, *earlier.tokens]
        self._resumed_tokens = len(earlier.tokens)
        self._echoed = True
        self.generated = list(earlier.tokens)
        text = self.prompt.echo_text + "".join(map(self._text.feed, earlier.pieces))
        self._characters_already_published = max(0, len(earlier.text) - len(text))
        self._ended_earlier = self._text.stopped or len(self.generated) >= self._max_tokens

    def _is_stop(self, token: int) -> bool:
        sampling = self.prompt.sampling
        return token in sampling.stop_token_ids and len(self.generated) >= sampling.min_length

    def _take(self, sampled: Sampled, text: str, logprobs: tuple[TokenLogprob, ...], context_tokens: int) -> Delta:
        self.generated.append(sampled.token)
        if self.lookup is not None:
            self.lookup.take(sampled.token)
        if self.draft_guesses is not None:
            self.draft_guesses.take(sampled.token)
        begins_at = self._text.length
        text += self._text.feed(sampled.piece)
        leaves_text = not self._text.stopped or begins_at < self._text.length
        if sampled.logprobs is not None and leaves_text:  # with a stop string they go where none of its text is left
            logprobs = (*logprobs, sampled.logprobs)
        reason = self._reason_to_end(sampled, context_tokens)
        if reason is not None:
            text += self._finish()
            self.end(Status.SUCCEEDED, reason)
        return Delta(text, (sampled.token,), logprobs)

    def _reason_to_end(self, sampled: Sampled, context_tokens: int) -> FinishReason | None:
        if self._text.stopped:
            return FinishReason.STOP
        if sampled.finish_reason is not None:
            return sampled.finish_reason
        is_full = len(self.prompt.tokens) + len(self.generated) >= context_tokens
        return FinishReason.LENGTH if is_full or len(self.generated) >= self._max_tokens else None

    def _finish(self) -> str:
        """Return the text held back, without the characters that an earlier attempt already published."""
        return self._text.finish()[self._characters_already_published :]
