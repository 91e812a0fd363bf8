"""The interface of an engine: prepare a request, run one step of a batch, embed texts.

An engine owns a loaded model and a cache of `slots` x `context_tokens` cells. The batch loop owns the decisions: which
sequence sits in which slot, which tokens run in a step. Only the thread of the loop calls an engine, except
for the methods that document otherwise; those must not touch the cache.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from app.config.adapters import Adapter
from app.config.finding import Finding
from app.config.settings import Config
from app.errors import ModelUnavailable, UnsupportedParameter
from app.jobs.job import AdapterUse, Chat, FinishReason, JobRequest, Text, TokenLogprob
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

        A turn takes about as long as a step and yields the new tokens, if there are any. The very last `Sampled`
        `is_end_token` or has a `finish_reason`, unless `max_tokens` ends the sequence. The loop takes turns between its
        steps, and closes the generator when the sequence has ended. After closing it, no thread of the backend may
        still run. An exception fails only this sequence.
        """


@dataclass(slots=True, kw_only=True)
class Prompt:
    """A request made ready by `Engine.prepare`.

    tokens: ids to prefill, never empty. echo_text: what to put before the completion: the prompt (`echo`), or the
    tag that begins thoughts, where the prompt ends with it; else empty.
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
    drafted: the last `drafted` tokens are guesses. Sample at the token before them. While the sampled token equals the
    next guess, sample at that guess too.
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
    """The next token of one sequence. `step` returns one for each chunk with `samples`, in their order.

    piece: the token's bytes, which may be a part of a UTF-8 character; empty for control tokens.
    is_end_token: an end-of-generation token (and `ignore_eos` is off): the sequence has ended, `piece` is not output.
    finish_reason: if set, the sequence ends here with this reason. The piece is output unless `is_end_token` is set.
    logprobs: of this token, when requested; prompt_logprobs: of the prompt's tokens, once, with `echo`.
    error: the sampler of this row failed; this sequence fails, the others continue.
    accepted: the tokens sampled after this one, one for each guess in a row that was right.
    """

    token: int
    piece: bytes
    is_end_token: bool = False
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprob | None = None
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    error: Exception | None = None
    accepted: Sequence["Sampled"] = ()

    def confirms(self, guess: int) -> bool:
        """Return whether the sequence continues with the token that was guessed."""
        return self.token == guess and not self.is_end_token and self.finish_reason is None and self.error is None


class SlotCache(Protocol):
    """A cache whose slots can be rearranged."""

    def move(self, source: int, target: int) -> None:
        """Move all cells of a slot to a free, lower one."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Replace the content of the slot `target` by the first `tokens` cells of `source`, which keeps its own."""

    def cut(self, slot: int, tokens: int) -> None:
        """Drop all but the first `tokens` cells of a slot."""


class CheckpointCache(SlotCache, Protocol):
    """A cache with a state that cannot be cut, only returned to a checkpoint."""

    def checkpoint(self, slot: int) -> None:
        """Remember the state behind what the slot holds now. A slot keeps a few checkpoints, the newest ones."""

    def resumable(self, slot: int, tokens: int) -> int:
        """Return the most tokens, at most `tokens`, to which the slot, or a copy of it, can be cut; 0: to none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """A sequence whose next token is to be guessed: behind `prompt.tokens` and `generated`, the last of which may be
    guesses.
    """

    slot: int
    prompt: Prompt
    generated: Sequence[int]


class Guess(NamedTuple):
    """probability: that the draft model gives the token."""

    token: int
    probability: float


class DraftModel(Protocol):
    """A smaller model that guesses tokens. It has a cache of its own, which follows the slots of the engine: what the
    loop does to a slot, through the engine or its `slot_cache`, happens to both.
    """

    @property
    def max_tokens(self) -> int:
        """How many tokens it may guess in a row."""

    def unread(self, continuation: Continuation) -> int | None:
        """Return how many tokens it has to compute before it can guess, at least 1. None: it has no guess here."""

    def guess(self, continuations: Sequence[Continuation], rows: int) -> list[Guess | None]:
        """Guess the next token of each (ascending by slot). Compute at most `rows` tokens, at least one for each.

        Returns None where that did not suffice (the next call continues), or where the sequence would end.
        """


class Engine(ABC):
    """A loaded model. Constructing one loads it: slow; raises `ModelUnavailable` with one line that names the fix."""

    @abstractmethod
    def __init__(self, config: Config, report: ReportProgress) -> None: ...

    @classmethod  # noqa: B027 - optional hook
    def check(cls, config: Config) -> None:
        """Check a configuration without loading or fetching a model.

        Raises:
            StartupError: one with which constructing would end, as far as that can be known before.
        """

    @classmethod
    def diagnose(cls, config: Config) -> Iterator[Finding]:
        """Give what `llm-api doctor` should know about this machine, without loading a model; raise nothing."""
        yield from ()

    @property
    @abstractmethod
    def limits(self) -> Limits: ...

    @property
    def token_bytes(self) -> int:
        """The most bytes of a text that one token stands for; 0: not known."""
        return 0

    @property
    def computes_on_cpu(self) -> bool:
        """Whether `step` keeps the CPUs busy. Then the loop runs at a lower priority than other threads."""
        return False

    @property
    def device(self) -> str:
        """What computes the model, for people: `cpu`, `cuda`; empty: not known."""
        return "cpu" if self.computes_on_cpu else ""

    @property
    def default_params(self) -> Mapping[str, float]:
        """The sampling parameters of a request that names none, as far as they are known: numbers by name."""
        return {}

    @property
    def slot_cache(self) -> SlotCache | None:
        """The cache, if its slots can be moved: holes between the slots of running sequences are closed."""
        return None

    @property
    def shares_prefixes(self) -> bool:
        """Whether `slot_cache` can copy and cut. Then the cells of an ended sequence stay until its slot is needed."""
        return False

    @property
    def checkpoint_cache(self) -> CheckpointCache | None:
        """The `slot_cache`, if it can be cut at checkpoints only. None: anywhere."""
        return None

    @property
    def verifies_drafts(self) -> bool:
        """Whether chunks may hold guesses (`Chunk.drafted`). Wrong ones are cut from their slot in `slot_cache`."""
        return False

    @property
    def mixes_adapters(self) -> bool:
        """Whether the chunks of a step may be of requests with different `JobRequest.adapters`."""
        return True

    @property
    def draft_model(self) -> DraftModel | None:
        """Guesses tokens where `verifies_drafts`. None: the loop takes guesses from the text only."""
        return None

    @abstractmethod
    def prepare(self, request: JobRequest) -> Prompt:
        """Tokenize and check a request. Called from any thread.

        Raises:
            PromptTooLong: with the prompt, not one token fits into `context_tokens`; names both lengths.
            InvalidGrammar, UnsupportedParameter: names the field.
        """

    @abstractmethod
    def resume(self, prompt: Prompt, generated: Sequence[int]) -> list[bytes]:
        """Advance `prompt.state` past `generated`, tokens of an earlier attempt. Called from any thread.

        Returns the pieces of these tokens, as `Sampled.piece`.
        """

    def start(self, slot: int, prompt: Prompt) -> None:  # noqa: B027 - optional hook
        """Empty `slot` for a new sequence. Not called if the sequence continues a prefix that the slot holds."""

    @abstractmethod
    def step(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        """Run the chunks (ascending by slot, at most `max_batched_tokens` tokens) and sample where asked.

        After any exception the loop fails the whole batch, calls `reset` and continues.
        """

    def release(self, slot: int | None, prompt: Prompt) -> None:  # noqa: B027 - optional hook
        """Free the slot's cells and `prompt.state`: the sequence has ended.

        `slot` is None if the sequence never had one, or if its cells are kept for the prefix cache.
        """

    def reset(self) -> None:  # noqa: B027 - optional hook
        """Drop the cells of every slot, after a failed step."""

    def used_cells(self) -> int:
        """Return the cells in use, summed over slots, those kept for the prefix cache included."""
        return 0

    def tokenize(self, text: str | Chat, *, add_special: bool) -> list[int]:
        """Return the tokens of a text, or of a chat as the model's template renders it. Called from any thread.

        add_special: with the tokens that the model wants around a prompt. Ends within 10 s: a client of the tokenizer
        service waits no longer. Raises `InvalidRequest`.
        """
        raise UnsupportedParameter("this model shows no tokens")

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones by name. Called from any thread. Raises `InvalidRequest`."""
        raise UnsupportedParameter("this model shows no tokens")

    def embed(
        self, texts: Sequence[Text], *, first: int = 0, adapters: Sequence[AdapterUse] = ()
    ) -> list[tuple[list[float], int]]:
        """Return for each text its L2-normalised vector and the number of its tokens. Raises `PromptTooLong`.

        first: the number of the first one in its request, for the name of the field in errors. adapters: of the
        request; passed only where there are any.
        Called from one thread, which is not the loop's: it must not touch what `step` uses.
        """
        raise UnsupportedParameter("this model has no embeddings")

    def load_adapter(self, adapter: Adapter) -> None:
        """Load a LoRA adapter while the engine runs, fetched first where it is on the Hub. Called from any thread.

        Raises ConfigError, ModelUnavailable.
        """
        raise ModelUnavailable("this family has no LoRA adapters")

    def unload_adapter(self, name: str, version: str) -> None:  # noqa: B027 - optional hook
        """Refuse new requests with this adapter; free it when those that have it have ended. Called from any thread."""

    def close(self) -> None:  # noqa: B027 - optional hook
        """Free the model. Called from the main thread, after the loop has stopped."""
