import pytest
from llguidance import LLMatcher, LLTokenizer

from workers.engines.shared.grammar_reasons import MAX_CHARACTERS, as_sentence

_TOKENIZER = LLTokenizer("byte")


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (r"start: /\bword\b/", [r"\b", "not supported", "without it"]),
        ("start: /a(?=b)/", ["(?=", "not supported", "without it"]),
        (r"start: /(a)\1/", [r"\1", "not supported", "without it"]),
        ("start: /(a/", ["unclosed group", "correct it"]),
        ('start: %json {"type": "any"}', ["has any", "string, array", "leave it out"]),
        ('start: %json {"$ref": "#/$defs/a"}', ["/$defs/a", "define it"]),
        ('start: %json {"$ref": "http://a/b"}', ["http://a/b", "$defs"]),
        ('start: %json {"type": "integer", "minimum": 2, "maximum": 1}', ["minimum (2)", "change one"]),
        ("start: missing", ["unknown name", "missing"]),
    ],
)
def test_an_error_of_the_library_is_one_line_with_what_to_do(grammar: str, words: list[str]) -> None:
    error = LLMatcher(_TOKENIZER, grammar, log_level=0).get_error()
    sentence = as_sentence(error)
    assert [word for word in words if word not in sentence] == []
    assert "\n" not in sentence and len(sentence) <= MAX_CHARACTERS
