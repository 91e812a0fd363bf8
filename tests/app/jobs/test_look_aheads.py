"""Patterns that begin with looking ahead, against Python's own reading of them."""

import re
import time

import pytest

from app.jobs.look_aheads import separated
from tests.waiting import scaled

TEXTS = ["", "a", "b", "c", "ab", "ba", "a)", "a|b", "AB1", "ab1", "aab", "(ab", "b)a"]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("^(?=a)[a-c]+$", 2),
        (r"^(?=.*[A-Z])(?=.*\d).{2,}$", 3),
        (r"^(?=(a|b)\)|\(a)[ab()]+", 2),
        ("^(?=[)(|]|[^)]b)(a|b)", 2),
        ("^(?=a|b$)", 2),
    ],
)
def test_the_patterns_match_together_what_the_one_matches(pattern: str, count: int) -> None:
    patterns = separated(pattern)
    assert len(patterns) == count and "(?=" not in "".join(patterns)
    assert [all(re.search(one, text) for one in patterns) for text in TEXTS] == [
        bool(re.search(pattern, text)) for text in TEXTS
    ]


@pytest.mark.parametrize(
    "pattern", ["^(?=a)b|c", "^(?=a)?b", "^(?=a", "(?=a)b", "^(?!a)b", "^a(?=b)", "a", "", "^(?=a)*", r"^(?=a\)b"]
)
def test_a_pattern_that_cannot_be_separated_is_returned_alone(pattern: str) -> None:
    assert separated(pattern) == [pattern]


@pytest.mark.parametrize("part", ["(?=", "(?=a)", "(?=[", "\\", "(?=a)(", "["])
def test_a_long_pattern_is_read_at_once(part: str) -> None:
    started = time.process_time()
    separated("^" + part * (60_000 // len(part)))
    assert time.process_time() - started < scaled(0.5)
