"""What an engine promises to the batch loop: prepare a request, run one step of a batch, embed texts.

An engine owns a loaded model and a cache of `slots` x `context_tokens` cells. The batch loop owns the decisions: which
sequence sits in which slot, which tokens run in a step. One thread, the loop's, calls everything but `prepare`, which
runs in other threads, several at once, and must not touch the cache.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from app.config.settings import Config
from app.errors import UnsupportedParameter
from app.jobs.job import Chat, FinishReason, JobRequest, Text, TokenLogprob, Usage
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


@dataclass(slots=True, kw_only=True)
class Prompt:
    """A request made ready by `Engine.prepare`.

    tokens: ids to prefill, never empty. echo_text: text to put before the completion (`echo`), else empty.
    state: whatever the engine keeps per sequence (a sampler chain); it goes back to the engine with every chunk and
    ends in `Engine.release`.
    solo: no row of a batch can do this (beam search, say): it goes through `Engine.run_solo`, and takes no slot.
    elsewhere: nothing of it is computed here: it goes through `Engine.forward`, beside any number of others.
    is_deterministic: the same request again gives the same tokens (greedy, or drawn with a seed).
    """

    tokens: list[int]
    sampling: SamplingParams
    echo_text: str = ""
    state: Any = None
    solo: bool = False
    elsewhere: bool = False
    is_deterministic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one sequence contributes to one step: `tokens` at positions `position`, `position + 1`, ... of `slot`.

    samples: the last token's logits choose the next token (decode, or the end of the prompt).
    generated: ids generated so far, for penalties and `min_length`.
    drafted: so many of the last tokens are guesses. The token before them chooses as ever; where that is the first
    guess, that one's logits choose too, and so on to the first guess that does not hold, or behind the last.
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
    ends: an end-of-generation token (and `ignore_eos` is off): the sequence is over, `piece` is not output.
    last: the sequence is over behind this token, whose piece is output, for this reason; with `ends`, without a piece.
    logprobs: of this token, when asked for; prompt_logprobs: of the prompt's tokens, once, with `echo`.
    error: the sampler of this row failed; this sequence fails, the others go on.
    usage: what somebody else has counted (`Engine.forward`), told with the last token.
    accepted: what was chosen behind it, where the chunk had guessed it: one for each guess that holds.
    """

    token: int
    piece: bytes
    ends: bool = False
    last: FinishReason | None = None
    logprobs: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    error: Exception | None = None
    usage: Usage | None = None
    accepted: Sequence["Sampled"] = ()

    def confirms(self, guess: int) -> bool:
        """The sequence goes on, and as it was guessed."""
        return self.token == guess and not self.ends and self.last is None and self.error is None


Tell = Callable[[Sequence[Sampled]], None]
Stop = Callable[[], None]


class Engine(ABC):
    """A loaded model. Constructing one loads it: slow; raises `ModelUnavailable` with one line that names the cure."""

    @abstractmethod
    def __init__(self, config: Config, report: ReportProgress) -> None: ...

    @property
    @abstractmethod
    def limits(self) -> Limits: ...

    @property
    def computes_on_cpu(self) -> bool:
        """Does `step` keep the CPUs busy? Then the loop gives way to others."""
        return False

    @abstractmethod
    def prepare(self, request: JobRequest) -> Prompt:
        """Tokenize and check a request. Called from any thread.

        Raises:
            PromptTooLong: the prompt leaves no room for one token in `context_tokens`; says both lengths.
            InvalidGrammar, UnsupportedParameter: names the field.
        """

    @abstractmethod
    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        """The sequence goes on after `generated`, tokens of an earlier attempt: bring `prompt.state` there.

        Returns the pieces of these tokens, as `Sampled.piece`. Called from any thread, after `prepare`.
        """

    def start(self, slot: int, prompt: Prompt) -> None:  # noqa: B027 - optional hook
        """A sequence takes `slot`: forget what the cache holds there."""

    @abstractmethod
    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        """Run the chunks (ascending by slot, at most `max_batched_tokens` tokens) and sample where asked.

        Raises anything: the loop then fails the whole batch, calls `reset` and goes on.
        """

    def run_solo(self, prompt: Prompt, generated: Sequence[int]) -> Generator[Sequence[Sampled]]:
        """Generate for an `solo` prompt, behind `generated` (tokens of an earlier attempt), turn by turn.

        A turn takes about as long as a step and brings what there is to tell, perhaps nothing. The last `Sampled` of
        all says that the sequence `ends` or is the `last`, where `max_tokens` does not. The loop takes turns between
        its steps, and closes the generator when the sequence is over for it: nothing may go on running then. Raises
        anything: this sequence fails, the batch goes on.
        """
        raise NotImplementedError  # pragma: no cover - only called for prompts that `prepare` has made solo

    def forward(self, prompt: Prompt, generated: Sequence[int], so_far: str, seconds: float, tell: Tell) -> Stop:
        """Have an `elsewhere` prompt answered by somebody else. Returns at once; called from the loop's thread.

        generated, so_far: the pieces and the text that an earlier attempt has published, to be gone on with.
        seconds: what the job has left.
        tell: to be called, from any thread, with what has come; each `Sampled` stands for a piece of text that came at
        once, its token for nothing. The last one of all `ends`, is the `last`, or has an `error`.

        Returns what gives the answer up: nothing may go on then.
        """
        raise NotImplementedError  # pragma: no cover - only called for prompts that `prepare` has made so

    def move(self, source: int, target: int) -> None:
        """Move a sequence's cache to a free, lower slot (closes holes). Engines without need for order ignore it."""
        raise NotImplementedError  # pragma: no cover - only called where moves_slots is set

    moves_slots: ClassVar[bool] = False

    @property
    def shares_prefixes(self) -> bool:
        """Do `copy` and `cut` work? Then the cells of a sequence that has ended stay until its slot is needed."""
        return False

    @property
    def verifies_drafts(self) -> bool:
        """May chunks hold guesses (`Chunk.drafted`)? Those that did not hold are `cut` from their slot."""
        return False

    def copy(self, source: int, target: int, tokens: int) -> None:
        """The first `tokens` cells of the slot `source` become all that `target` holds. `source` keeps what it has."""
        raise NotImplementedError  # pragma: no cover - only called where shares_prefixes is set

    def cut(self, slot: int, tokens: int) -> None:
        """Forget all but the first `tokens` cells of a slot: all that is left is of use to the sequence in it."""
        raise NotImplementedError  # pragma: no cover - only called where shares_prefixes or verifies_drafts is set

    def release(self, slot: int | None, prompt: Prompt) -> None:  # noqa: B027 - optional hook
        """The sequence has ended: free the slot's cells (slot None: it has none, or they stay) and `prompt.state`."""

    def reset(self) -> None:  # noqa: B027 - optional hook
        """After a failed step: forget every slot."""

    def used_cells(self) -> int:
        """Cache cells held by sequences, summed over slots; 0 when nothing runs."""
        return 0

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        """The tokens of a text, or of a chat as the model's template renders it. Called from any thread.

        add_special: with the tokens that the model wants around a prompt. Raises `InvalidRequest`.
        """
        raise UnsupportedParameter("this model shows no tokens")

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones by name. Called from any thread. Raises `InvalidRequest`."""
        raise UnsupportedParameter("this model shows no tokens")

    embedding_calls: ClassVar[int] = 1  # at once; more than one: each for a request of its own

    def embed(self, texts: Sequence[Text]) -> list[tuple[list[float], int]]:
        """For each text its L2-normalised vector and the number of its tokens. Raises `PromptTooLong`.

        Called from `embedding_calls` threads, but not the loop's: it must not touch what `step` uses."""
        raise UnsupportedParameter("this model has no embeddings")

    def close(self) -> None:  # noqa: B027 - optional hook
        """Free the model."""
