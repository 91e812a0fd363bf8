"""What an engine promises to the batch loop: prepare a request, run one step of a batch, embed texts.

An engine owns a loaded model and a cache of `slots` x `context_tokens` cells. The batch loop owns the decisions: which
sequence sits in which slot, which tokens run in a step. Only the thread of the loop calls an engine, except
for the methods that document otherwise; those must not touch the cache.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.config.settings import Config
from app.errors import UnsupportedParameter
from app.jobs.job import Chat, FinishReason, JobRequest, Text, TokenLogprob
from app.jobs.sampling import SamplingParams
from workers.models.progress import ReportProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a loaded model allows.

    slots: sequences in one batch. context_tokens: cells of one slot, prompt and completion together.
    max_batched_tokens: rows of one step, decode and prefill together.
    """

    slots: int
    context_tokens: int
    max_batched_tokens: int


class SoloBackend(Protocol):
    """Generates for prompts that no row of a batch can hold (beam search, say), one at a time."""

    def run(self, prompt: "Prompt", generated: Sequence[int]) -> Generator[Sequence["Sampled"]]:
        """Generate for a prompt, after the tokens `generated` of an earlier attempt, turn by turn.

        A turn takes about as long as a step and yields what is new, perhaps nothing. The last `Sampled` of all `ends`
        or is the `last`, unless `max_tokens` ends the sequence. The loop takes turns between its steps, and closes the
        generator when the sequence has ended: nothing may run then. Raises anything: this sequence fails, the batch
        continues.
        """


@dataclass(slots=True, kw_only=True)
class Prompt:
    """A request made ready by `Engine.prepare`.

    tokens: ids to prefill, never empty. echo_text: text to put before the completion (`echo`), else empty.
    state: what the engine keeps per sequence (a sampler chain); it comes back with every chunk and ends in
    `Engine.release`.
    solo: generates for this prompt outside the batch, without a slot; None: it is a row of the batch.
    is_deterministic: the same request again gives the same tokens (greedy, or drawn with a seed).
    """

    tokens: list[int]
    sampling: SamplingParams
    echo_text: str = ""
    state: Any = None
    solo: SoloBackend | None = None
    is_deterministic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one sequence contributes to one step: `tokens` at positions `position`, `position + 1`, ... of `slot`.

    samples: the last token's logits choose the next token (decode, or the end of the prompt).
    generated: ids generated so far, for penalties and `min_length`.
    drafted: how many of the last tokens are guesses. The token before them chooses the next one as always; where that
    is the first guess, that one's logits choose too, and so on to the first guess that fails, or after the last.
    """

    slot: int
    tokens: Sequence[int]
    position: int
    samples: bool
    prompt: Prompt
    generated: Sequence[int]
    drafted: int = 0

    @property
    def draft(self) -> Sequence[int]:
        return self.tokens[len(self.tokens) - self.drafted :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The next token of one sequence, in the order of the chunks with `samples`.

    piece: the token's bytes, which may be a part of a UTF-8 character; empty for control tokens.
    ends: an end-of-generation token (and `ignore_eos` is off): the sequence has ended, `piece` is not output.
    last: the sequence ends after this token, whose piece is output, for this reason; with `ends`, without a piece.
    logprobs: of this token, when requested; prompt_logprobs: of the prompt's tokens, once, with `echo`.
    error: the sampler of this row failed; this sequence fails, the others continue.
    accepted: the tokens chosen after it, where the chunk had guessed it: one for each guess that holds.
    """

    token: int
    piece: bytes
    ends: bool = False
    last: FinishReason | None = None
    logprobs: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    error: Exception | None = None
    accepted: Sequence["Sampled"] = ()

    def confirms(self, guess: int) -> bool:
        """Return whether the sequence continues, and as it was guessed."""
        return self.token == guess and not self.ends and self.last is None and self.error is None


class SlotCache(Protocol):
    """A cache whose slots can be rearranged."""

    def move(self, source: int, target: int) -> None:
        """Move all cells of a slot to a free, lower one."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """The first `tokens` cells of the slot `source` become all that `target` holds. `source` keeps what it has."""

    def cut(self, slot: int, tokens: int) -> None:
        """Drop all but the first `tokens` cells of a slot."""


class Engine(ABC):
    """A loaded model. Constructing one loads it: slow; raises `ModelUnavailable` with one line that names the cure."""

    @abstractmethod
    def __init__(self, config: Config, report: ReportProgress) -> None: ...

    @property
    @abstractmethod
    def limits(self) -> Limits: ...

    @property
    def computes_on_cpu(self) -> bool:
        """Does `step` keep the CPUs busy? Then the loop runs at a lower priority than other threads."""
        return False

    @property
    def slot_cache(self) -> SlotCache | None:
        """The cache, if its slots can be moved: holes between the slots of running sequences are closed."""
        return None

    @property
    def shares_prefixes(self) -> bool:
        """Can `slot_cache` copy and cut? Then the cells of a sequence that has ended stay until its slot is needed."""
        return False

    @property
    def verifies_drafts(self) -> bool:
        """May chunks hold guesses (`Chunk.drafted`)? Those that fail are cut from their slot in `slot_cache`."""
        return False

    @abstractmethod
    def prepare(self, request: JobRequest) -> Prompt:
        """Tokenize and check a request. Called from any thread.

        Raises:
            PromptTooLong: the prompt leaves no room for one token in `context_tokens`; names both lengths.
            InvalidGrammar, UnsupportedParameter: names the field.
        """

    @abstractmethod
    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        """Bring `prompt.state` behind `generated`, tokens of an earlier attempt. Called from any thread.

        Returns the pieces of these tokens, as `Sampled.piece`.
        """

    def start(self, slot: int, prompt: Prompt) -> None:  # noqa: B027 - optional hook
        """A sequence takes `slot`: drop what the cache holds there."""

    @abstractmethod
    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        """Run the chunks (ascending by slot, at most `max_batched_tokens` tokens) and sample where asked.

        Raises anything: the loop then fails the whole batch, calls `reset` and continues.
        """

    def release(self, slot: int | None, prompt: Prompt) -> None:  # noqa: B027 - optional hook
        """The sequence has ended: free the slot's cells (slot None: it has none, or they stay) and `prompt.state`."""

    def reset(self) -> None:  # noqa: B027 - optional hook
        """After a failed step: drop the cells of every slot."""

    def used_cells(self) -> int:
        """Cache cells held by sequences, summed over slots; 0 when nothing runs."""
        return 0

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        """Return the tokens of a text, or of a chat as the model's template renders it. Called from any thread.

        add_special: with the tokens that the model wants around a prompt. Raises `InvalidRequest`.
        """
        raise UnsupportedParameter("this model shows no tokens")

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones by name. Called from any thread. Raises `InvalidRequest`."""
        raise UnsupportedParameter("this model shows no tokens")

    def embed(self, texts: Sequence[Text]) -> list[tuple[list[float], int]]:
        """Return for each text its L2-normalised vector and the number of its tokens. Raises `PromptTooLong`.

        Called from one thread, which is not the loop's: it must not touch what `step` uses.
        """
        raise UnsupportedParameter("this model has no embeddings")

    def close(self) -> None:  # noqa: B027 - optional hook
        """Free the model."""
