"""A model's tokens as every family shows them: text to tokens and back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.errors import InvalidRequest, PromptTooLong, UnsupportedParameter
from app.jobs.job import Text
from app.jobs.sampling import SamplingParams
from workers.engines.shared.child_process import ChildFailed
from workers.engines.shared.child_program import Limits

INLINE_CHARACTERS = 4096
"""The longest text that is tokenized in the worker's own process: a millisecond or two for any text. Some of
llama.cpp's tokenizers end the process on 20,000 equal letters.
"""
TOKENIZER_LIMITS = Limits(
    cpu_seconds=5.0,  # 1 MB of prose takes a second
    memory_bytes=2 * 1024**3,  # a large vocabulary takes 200 MB
    wait_seconds=8.0,  # a client of the tokenizer service waits 10 s
)
TOKENIZER_PROCESSES = 2  # each holds the vocabulary
TOKENIZER_NICENESS = 5  # beyond the model's: long texts without a pause take a quarter of a CPU from it, not a half


class TooManyTokens(Exception):
    """A text has at least `tokens` tokens, which is known before it is tokenized."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class Vocabulary(ABC):
    """Any thread may use it.

    size: number of tokens, which is the number of logits. infill: the tokens that announce prefix, suffix and gap; None
    where the model was not trained to fill in. model_nice: the niceness of the threads that compute the model.
    """

    model_nice = 0
    size: int
    infill: tuple[int, int, int] | None

    @abstractmethod
    def tokenize(self, text: str, *, add_special: bool = True, most: int | None = None) -> list[int]:
        """Return the tokens of a text, special tokens in it recognised.

        Args:
            add_special: put BOS and EOS where the model wants them.
            most: no more are of use.

        Raises:
            TooManyTokens: there are more than `most`, and this was found out before they were computed.
            ChildFailed: it takes too long, or too much memory.
        """

    def tokens_of(
        self, text: str, field: str, *, add_special: bool = True, most: int | None = None, cure: str = ""
    ) -> list[int]:
        """Return the tokens of a client's text; see `tokenize`. There may still be more than `most`.

        Args:
            field: that has the text. cure: see `PromptTooLong.for_context`.

        Raises:
            PromptTooLong, InvalidRequest: in the place of `TooManyTokens` and `ChildFailed`; names the field.
        """
        try:
            return self.tokenize(text, add_special=add_special, most=most)
        except TooManyTokens as error:
            raise PromptTooLong.for_context(
                field, tokens=error.tokens, context_tokens=most or 0, cure=cure, is_at_least=True
            ) from None
        except ChildFailed as error:
            reason = f"it cannot be tokenized ({error}): send a shorter one"
            raise InvalidRequest(f"{field}: {reason}", errors={field: [reason]}) from None

    @property
    def _tokenizer_limits(self) -> Limits:
        return replace(TOKENIZER_LIMITS, niceness=min(19, self.model_nice + TOKENIZER_NICENESS))

    def close(self) -> None:  # noqa: B027 - optional hook
        """End its processes."""

    @abstractmethod
    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> str:
        """Return the text of tokens; special ones by name, or left out."""

    @abstractmethod
    def text(self, token: int) -> str:
        """Return a token as text to show, special ones by name."""

    def checked(self, tokens: Sequence[int], field: str) -> list[int]:
        """Return token ids that came from a client.

        Raises:
            InvalidRequest: an id is not in the vocabulary; names the field.
        """
        unknown = self._first_unknown(tokens)
        if unknown:
            raise InvalidRequest(f"{field} names an unknown token: {unknown}", errors={field: [unknown]})
        return list(tokens)

    def check_named(self, sampling: SamplingParams) -> None:
        """Raises InvalidRequest: a parameter names a token that is not in the vocabulary; names it and the range."""
        self.checked(sorted(sampling.logit_bias), "params.logit_bias")
        self.checked(sampling.stop_token_ids, "params.stop_token_ids")

    def infill_tokens(self, text: str, suffix: str, most: int | None = None) -> list[int]:
        """Return prefix, suffix, then the place to fill, in the order of llama.cpp's server. most: see `tokens_of`.

        Raises:
            UnsupportedParameter: the model was not trained to fill in.
        """
        if self.infill is None:
            raise UnsupportedParameter(
                "this model cannot fill in between a prompt and a suffix: leave suffix out or use a model trained "
                "for it",
                errors={"params.suffix": ["this model has no infill tokens"]},
            )
        prefix_token, suffix_token, middle_token = self.infill
        before = self.tokens_of(text, "prompt", add_special=False, most=most)
        after = self.tokens_of(suffix, "params.suffix", add_special=False, most=most)
        start = self.tokenize("")  # BOS, where the model wants one
        return [*start, prefix_token, *before, suffix_token, *after, middle_token]

    def text_to_embed(self, text: Text, field: str, most: int, cure: str = "") -> list[int]:
        """Return the tokens of a text to embed.

        Args:
            most: tokens that the model reads. cure: see `PromptTooLong.for_context`.

        Raises:
            InvalidRequest: there are none, or unknown ones.
            PromptTooLong: there are more than `most`.
        """
        if isinstance(text, str):
            tokens = self.tokens_of(text, field, most=most, cure=cure)
        else:
            tokens = self.checked(text, field)
        if not tokens:
            raise InvalidRequest("a text has no tokens", errors={field: ["write something this model can read"]})
        if len(tokens) > most:
            raise PromptTooLong.for_context(
                field, tokens=len(tokens), context_tokens=most, completion_tokens=0, cure=cure
            )
        return tokens

    def _first_unknown(self, tokens: Iterable[int]) -> str:
        unknown = next((token for token in tokens if not 0 <= token < self.size), None)
        return "" if unknown is None else f"there is no token {unknown}: ids go from 0 to {self.size - 1}"


def without_second_bos(tokens: list[int], bos: int | None) -> list[int]:
    """Return the tokens without the BOS that a chat template wrote in front of the text."""
    return tokens[1:] if len(tokens) > 1 and tokens[0] == tokens[1] == bos else tokens


def shown_token(piece: bytes) -> str:
    """Return the token's text. A part of a UTF-8 character becomes `bytes:\\xf0\\x9f`, as OpenAI writes it: nothing is
    lost, and two such tokens do not look alike.
    """
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
