"""Which tokens a sequence may have next: grammars and JSON schemas, through llguidance, for every model family.

Some inputs would crash llguidance or make the whole batch wait. It calls itself once per rule of a chain, so it
compiles on a thread with a stack of known size. Its limits count items, which do not bound the time of an ambiguous
grammar, so a sequence also has a credit of CPU time and fails when that is spent. Tokens are never forced
(`no_forcing`): forcing tokenizes all the text ahead that only the grammar decides, again at every token.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from app.errors import GrammarTooCostly, InvalidGrammar
from app.jobs.json_schema import Path
from app.jobs.sampling import SamplingParams
from app.jobs.schema_support import supported
from workers.engines.shared.ascii_classes import with_ascii_classes
from workers.engines.shared.gbnf import GrammarSyntaxError, lark_of_gbnf
from workers.engines.shared.grammar_reasons import as_sentence
from workers.engines.shared.grammar_sandbox import GrammarSandbox
from workers.engines.shared.schema_fault import faulty_part
from workers.engines.shared.schema_lengths import (
    free_characters,
    longest_name,
    most_items,
    most_properties,
    with_lengths,
)
from workers.engines.shared.short_lived_thread import outcome_in_thread
from workers.engines.shared.value_end import ValueEnd, Vocabulary

MAX_BYTES = 65_536  # of a grammar or a schema, as the API has it
MAX_SCHEMA_OBJECTS = 1_000  # each may be one more call of llguidance to itself
STACK_BYTES = 64 * 1024 * 1024  # 8,000 such calls or more; the 1,000 allowed touch 8 MB of it
FIRST_CREDIT_SECONDS = 0.5  # CPU time by which a sequence may hold up the batch, and then by one last step
CREDIT_SECONDS_PER_VOCABULARY_TOKEN = 0.5e-6  # earned by every accepted token: 25 ms for 49,000, ten costly masks
MIN_EARLEY_ITEMS, EARLEY_ITEMS_PER_VOCABULARY_TOKEN = (
    100_000,
    4,
)  # of one step; an ordinary grammar takes 1 where every token is allowed
_OPTIONS = '%llguidance {"no_forcing": true}\n'
_JSON_STYLE = {  # one line, as json.dumps writes it: small models that may write any white space write nothing else
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,  # `supported` reports where that is not the same
}
_LARK_START = re.compile(r"^[ \t]*[?!]*start(?:\.[0-9]+)?[ \t]*:(?!:=)", re.MULTILINE)  # its first rule has this name
_LENGTHS = re.compile(r'"(?:min|max)Length": ([0-9]{1,9})\b')
_KINDS = {
    "params.grammar": "grammar",
    "params.json_schema": "JSON schema",
    "params.regex": "regular expression",
}
_compiling = threading.Lock()  # one at a time: the other cores are for decoding


class ConstraintCompiler:
    """One per loaded model; any thread may use it.

    Args:
        tokenizer: of `llguidance.hf.from_tokenizer`, or `tokenizer_of_pieces`; with all end-of-generation tokens.
        context_tokens: of prompt and output together; what a schema leaves without an end gets one in proportion.
    """

    def __init__(self, tokenizer: LLTokenizer, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._sandbox = GrammarSandbox()
        items = max(MIN_EARLEY_ITEMS, tokenizer.vocab_size * EARLEY_ITEMS_PER_VOCABULARY_TOKEN)
        self._limits = LLParserLimits(step_max_items=items, verbose_errors=False)  # verbose ones hold the text so far

    def compile(self, sampling: SamplingParams) -> "Constraint | None":
        """Return None where the parameters hold no grammar, schema or regular expression. Takes 1-5 ms, at worst 1 s.

        Raises:
            InvalidGrammar: the field and what is wrong with it.
        """
        if sampling.grammar is not None:
            return self._compiled("params.grammar", sampling.grammar, self._of_grammar)
        if sampling.json_schema is not None:
            return self._compiled("params.json_schema", _json(sampling.json_schema), self._of_json_schema)
        if sampling.regex is not None:
            return self._compiled("params.regex", sampling.regex, self._of_regex)
        return None

    def _compiled(self, field: str, text: str, convert: Callable[[str], str]) -> "Constraint":
        if len(text.encode("utf-8", "replace")) > MAX_BYTES:
            raise _invalid(field, f"longer than {MAX_BYTES} bytes: make it smaller")
        try:
            grammar = convert(text)
            matcher = self._matcher(grammar)
        except GrammarSyntaxError as error:
            raise _invalid(field, str(error)) from error
        if matcher.is_error():
            fault = matcher.get_error()
            raise _invalid(field, as_sentence(fault), path=self._faulty_part(field, text, fault))
        constraint = Constraint(matcher, self._tokenizer, field, self._value_end(field, text))
        constraint.allow(np.zeros(self._tokenizer.vocab_size, dtype=np.float32))  # raises where no text can satisfy it
        return constraint

    def _matcher(self, grammar: str) -> LLMatcher:
        return _on_deep_stack(lambda: LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits))

    def _faulty_part(self, field: str, text: str, fault: str) -> Path:
        def fails(part: dict[str, Any]) -> bool:
            try:
                return bool(self._matcher(self._of_json_schema(json.dumps(part))).get_error() == fault)
            except (GrammarSyntaxError, GrammarTooCostly):
                return False

        return faulty_part(json.loads(text), fails) if field == "params.json_schema" else ()

    def _value_end(self, field: str, text: str) -> ValueEnd | None:
        if field != "params.json_schema":
            return None
        schema = json.loads(text)
        given = [int(length) for length in _LENGTHS.findall(text)]  # the schema may want longer texts somewhere
        return ValueEnd(
            self._vocabulary,
            characters=max(free_characters(self._context_tokens), *given, 0),
            name_characters=longest_name(schema),
            items=most_items(schema, self._context_tokens),
            properties=most_properties(schema, self._context_tokens),
        )

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of_pieces([self._tokenizer.decode_bytes([i]) for i in range(self._tokenizer.vocab_size)])

    def _of_grammar(self, text: str) -> str:
        if not _LARK_START.search(text):
            return _OPTIONS + lark_of_gbnf(text)
        grammar = _OPTIONS + with_ascii_classes(text)
        if not self._sandbox.compiles(grammar):
            raise _too_costly("params.grammar", "it takes too long to compile: simplify it")
        return grammar

    def _of_json_schema(self, text: str) -> str:
        if text.count("{") > MAX_SCHEMA_OBJECTS:
            raise GrammarSyntaxError(f"more than {MAX_SCHEMA_OBJECTS} objects in it: make it smaller")
        try:
            schema = supported(json.loads(text)).schema
            if schema is False:
                raise GrammarSyntaxError("no value matches it")
            schema = with_lengths(schema, self._context_tokens) | {"x-guidance": _JSON_STYLE}
        except RecursionError:
            raise GrammarSyntaxError("nested too deeply") from None
        start = {"lark_grammar": f"{_OPTIONS}start: @schema\n"}
        grammar = json.dumps({"grammars": [start, {"name": "schema", "json_schema": schema}]})
        if not self._sandbox.compiles_schema(text, grammar):
            raise _too_costly("params.json_schema", "its patterns take too long to compile: simplify or drop them")
        return grammar

    def _of_regex(self, text: str) -> str:
        grammars = json.loads(LLMatcher.grammar_from_regex(with_ascii_classes(text)))["grammars"]
        grammar = json.dumps({"grammars": [{"lark_grammar": f"{_OPTIONS}start: @{grammars[0]['name']}\n"}, *grammars]})
        if not self._sandbox.compiles(grammar):
            raise _too_costly("params.regex", "it takes too long to compile: simplify it")
        return grammar


def tokenizer_of_pieces(
    pieces: Sequence[bytes], *, control_tokens: Collection[int], end_tokens: Collection[int]
) -> LLTokenizer:
    """Make a tokenizer from the bytes of every token; takes 0.15 s for 49,000.

    Args:
        pieces: may be a part of a UTF-8 character; an empty one is never allowed.
        control_tokens: never allowed, whatever their bytes.
        end_tokens: at least one; allowed only where the grammar may end.
    """
    return LLTokenizer(TokenizerWrapper(_Vocabulary(pieces, control_tokens, end_tokens)), eos_token=sorted(end_tokens))


class Constraint:
    """Where one sequence stands in its grammar; one thread at a time.

    Everything but `is_complete` raises `InvalidGrammar` when the grammar turns out too ambiguous or leads nowhere: the
    sequence fails.
    """

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, field: str, value_end: ValueEnd | None) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._value_end = value_end
        self._size: int = tokenizer.vocab_size
        self._end_tokens = frozenset(tokenizer.eos_tokens)
        self._field = field
        self._credit_seconds = FIRST_CREDIT_SECONDS

    @property
    def is_complete(self) -> bool:
        """Only an end-of-generation token is allowed now."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def permits(self, token: int) -> bool:
        """Is this one token allowed? Takes a few µs: sample first, ask, and call `allow` only when it is not."""
        with self._charged():
            if self._matcher.is_stopped():
                return token in self._end_tokens
            is_allowed: bool = 0 <= token < self._size and self._matcher.validate_tokens([token]) == 1
        if is_allowed and self._value_end is not None and self._value_end.discourages(token):
            return not bool(self._forbidden()[token])
        return is_allowed

    def allow(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits (`[vocabulary]`, perhaps padded) of all that is not allowed to -inf, in place."""
        forbidden = self._forbidden()
        logits[: self._size][forbidden[: len(logits)]] = -np.inf
        logits[self._size :] = -np.inf

    def accept(self, token: int) -> None:
        """Advance by this token. Raises `ValueError` and changes nothing where it is not allowed."""
        if not self.permits(token):
            raise ValueError(f"token {token} is not allowed here")
        with self._charged():
            self._matcher.consume_token(token)
            if self._value_end is not None:
                self._value_end.follow(self._tokenizer.decode_bytes([token]))
        earned = self._size * CREDIT_SECONDS_PER_VOCABULARY_TOKEN
        self._credit_seconds = min(FIRST_CREDIT_SECONDS, self._credit_seconds + earned)

    def _forbidden(self) -> npt.NDArray[np.bool_]:
        with self._charged():
            packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        forbidden: npt.NDArray[np.bool_] = np.unpackbits(packed, bitorder="little", count=self._size) == 0
        if self._value_end is not None:
            self._value_end.restrict(forbidden)
        return forbidden

    @contextmanager
    def _charged(self) -> Iterator[None]:
        started = time.thread_time()
        yield
        self._credit_seconds -= time.thread_time() - started
        if self._matcher.is_error():
            reason = as_sentence(self._matcher.get_error())
            raise _invalid(self._field, f"it leads nowhere, or is too complex to follow ({reason})")
        if self._credit_seconds < 0:
            raise _too_costly(self._field, "too ambiguous: it takes too long to follow; make it simpler")


class _Vocabulary:
    """The tokenizer that `TokenizerWrapper` asks for."""

    bos_token_id = None

    def __init__(self, pieces: Sequence[bytes], control: Collection[int], ends: Collection[int]) -> None:
        self.special_token_ids = sorted({*control, *ends})
        self.tokens = list(pieces)
        for token in self.special_token_ids:
            self.tokens[token] = b"<[%d]>" % token  # each has a name of its own
        self.eos_token_id = min(ends)

    def __call__(self, text: str | bytes) -> list[int]:
        """Only forcing would tokenize, which is off."""
        return []


def _json(schema: dict[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except RecursionError as error:
        raise _invalid("params.json_schema", "nested too deeply") from error


def _on_deep_stack(construct: Callable[[], LLMatcher]) -> LLMatcher:
    with _compiling:
        outcome = outcome_in_thread(construct, stack_bytes=STACK_BYTES)
    if error := outcome.exception():  # a panic of the library is no `Exception`
        raise GrammarSyntaxError("llguidance fails at it: write it another way") from error
    return outcome.result()


def _invalid(
    field: str, reason: str, kind: type[InvalidGrammar] = InvalidGrammar, *, path: Path = ()
) -> InvalidGrammar:
    name = ".".join((field, *path))
    place = f" at {name}" if path else ""
    return kind(f"the {_KINDS[field]} cannot be followed{place}: {reason}", errors={name: [reason]})


def _too_costly(field: str, reason: str) -> InvalidGrammar:
    return _invalid(field, reason, GrammarTooCostly)
