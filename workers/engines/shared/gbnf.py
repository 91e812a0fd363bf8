"""GBNF, llama.cpp's grammar notation, rewritten in the Lark dialect of llguidance.

Not by llguidance's own `gbnf_to_lark`: it makes lexemes of whole rules, and lexemes are matched longest first, so that
`root ::= [a-z]* "a" x` can never reach its "a"; it garbles `\\u00e9`; and to it `.` is no line break. Here a grammar
without recursion becomes one lexeme, a regular expression, and in any other every single character is a lexeme: in
neither does longest-first have a choice, so both accept exactly what GBNF accepts.

The notation is that of llama.cpp's `grammars/README.md`, without token rules (`<...>`). Left recursion is allowed.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

MAX_RULES = 1_000  # groups included; llguidance calls itself once per rule of a chain, see `constraint.STACK_BYTES`
MAX_ITEMS = 2_000  # in all rules, a literal being one: where n may be empty, one step takes n * n, 0.6 s for these
MAX_EXPRESSION = 1_000  # characters of a regular expression, rules written out: likewise, 0.3 s for these

_TOKEN = re.compile(
    r"""
    (?P<space>   (?: [ \t\r\n] | \#[^\r\n]* )+ ) |
    (?P<rule>    [A-Za-z0-9_-]+ (?= [ \t]* ::= ) ) |
    (?P<defines> ::= ) |
    (?P<name>    [A-Za-z0-9_-]+ ) |
    (?P<literal> " (?: [^"\\] | \\. )* " ) |
    (?P<set>     \[ (?: [^\]\\] | \\. )* \] ) |
    (?P<repeat>  [*+?] | \{ \s* [0-9]{1,9} \s* (?: , \s* [0-9]{0,9} \s* )? \} ) |
    (?P<sign>    [().|] )
    """,
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(r"\\x[0-9A-Fa-f]{2} | \\u[0-9A-Fa-f]{4} | \\U[0-9A-Fa-f]{8} | \\. | .", re.VERBOSE | re.DOTALL)
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"} | {sign: sign for sign in '\\"[]-'}
_ANY = "/(?s:.)/"


class GrammarSyntaxError(ValueError):
    """The text is no GBNF; the message has the reason and the line."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A character or a string of them as Lark (`lark`), or a reference to a rule, and how often it is wanted."""

    lark: str = ""
    rule: str = ""
    repetition: str = ""


@dataclass(slots=True)
class _Rule:
    """Of the grammar, or a group in one of its rules."""

    name: str
    alternatives: list[list[_Item]] = field(default_factory=lambda: [[]])

    def references(self) -> Iterator[str]:
        return (item.rule for items in self.alternatives for item in items if item.rule)


def lark_of_gbnf(text: str) -> str:
    """Return the grammar in Lark's notation.

    Raises:
        GrammarSyntaxError: the text is no GBNF, or too large.
    """
    return _written(_Reader(text).rules())


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._rules: dict[str, _Rule] = {}
        self._open: list[_Rule] = []  # the rule being read and the groups open in it
        self._groups = 0
        self._items = 0

    def rules(self) -> dict[str, _Rule]:
        for kind, value in self._tokens():
            self._read(kind, value)
        if len(self._open) > 1:
            raise self._error("a '(' is never closed")
        self._check_names()
        return self._rules

    def _tokens(self) -> Iterator[tuple[str, str]]:
        while self._at < len(self._text):
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                raise self._error(f"cannot read {self._text[self._at : self._at + 10]!r}")
            yield str(match.lastgroup), match.group()
            self._at = match.end()

    def _read(self, kind: str, value: str) -> None:
        if kind == "rule":
            self._begin_rule(value)
        elif not self._open:
            if kind != "space":
                raise self._error("a rule must begin with its name and '::='")
        elif kind == "repeat":
            self._repeat(value)
        elif kind == "sign":
            self._read_sign(value)
        elif kind == "name":
            self._add(_Item(rule=value))
        elif kind == "literal":
            self._add(_Item(self._literal(value[1:-1])))
        elif kind == "set":
            self._add(_Item(self._set(value[1:-1])))

    def _read_sign(self, sign: str) -> None:
        if sign == ".":
            self._add(_Item(_ANY))
        elif sign == "|":
            self._count_item()
            self._open[-1].alternatives.append([])
        elif sign == "(":
            self._groups += 1
            self._open.append(self._new_rule(f"({self._groups})"))
        elif len(self._open) == 1:
            raise self._error("a ')' without its '('")
        else:
            group = self._open.pop()
            self._add(_Item(rule=group.name))

    def _begin_rule(self, name: str) -> None:
        if len(self._open) > 1:
            raise self._error("a '(' is never closed")
        self._open = [self._new_rule(name)]

    def _new_rule(self, name: str) -> _Rule:
        if len(self._rules) == MAX_RULES:
            raise self._error(f"more than {MAX_RULES} rules and groups: make the grammar smaller")
        self._rules[name] = _Rule(name)  # a rule defined twice: the last one counts, as in llama.cpp
        return self._rules[name]

    def _add(self, item: _Item) -> None:
        self._count_item()
        self._open[-1].alternatives[-1].append(item)

    def _count_item(self) -> None:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise self._error(f"more than {MAX_ITEMS} items: make the grammar smaller")

    def _repeat(self, sign: str) -> None:
        items = self._open[-1].alternatives[-1]
        if not items:
            raise self._error(f"nothing stands before the {sign!r}")
        item = items.pop()
        if item.repetition:  # `a*{2}`: Lark repeats only what is not repeated yet
            self._groups += 1
            self._new_rule(f"({self._groups})").alternatives[-1].append(item)
            item = _Item(rule=f"({self._groups})")
        repetition = self._checked_repetition(sign)
        if repetition != "{0,0}":
            items.append(_Item(item.lark, item.rule, repetition))

    def _checked_repetition(self, sign: str) -> str:
        if sign in "*+?":
            return sign
        least, _, most = "".join(sign[1:-1].split()).partition(",")
        if "," not in sign:
            most = least
        if most and int(most) < int(least):
            raise self._error(f"the bounds of {sign} are the wrong way round")
        return f"{{{int(least)},{int(most) if most else ''}}}"

    def _literal(self, body: str) -> str:
        characters = [f"/{_regex(self._code_point(match.group()))}/" for match in _CHARACTER.finditer(body)]
        return f"({' '.join(characters)})" if len(characters) != 1 else characters[0]

    def _set(self, body: str) -> str:
        inverted = body.startswith("^")
        characters = deque(_CHARACTER.findall(body[inverted:]))
        if not characters:
            raise self._error("a character set has nothing in it")
        ranges = []
        while characters:
            low = high = self._code_point(characters.popleft())
            if len(characters) > 1 and characters[0] == "-":
                characters.popleft()
                high = self._code_point(characters.popleft())
            if high < low:
                raise self._error("the bounds of a character range are the wrong way round")
            ranges.append(f"{_regex(low)}-{_regex(high)}")
        return f"/[{'^' * inverted}{''.join(ranges)}]/"

    def _code_point(self, character: str) -> int:
        if len(character) == 1:
            code_point = ord(character)
        elif len(character) > 2:
            code_point = int(character[2:], 16)
        elif character[1] in _ESCAPES:
            code_point = ord(_ESCAPES[character[1]])
        else:
            raise self._error(f"unknown escape {character}")
        if code_point > 0x10FFFF or 0xD800 <= code_point < 0xE000:
            raise self._error(f"there is no character {code_point:#x}")
        return code_point

    def _check_names(self) -> None:
        if "root" not in self._rules:
            raise GrammarSyntaxError("there is no rule 'root'")
        for rule in self._rules.values():
            for name in rule.references():
                if name not in self._rules:
                    raise GrammarSyntaxError(f"the rule {name!r} is used but not defined")

    def _error(self, reason: str) -> GrammarSyntaxError:
        return GrammarSyntaxError(f"line {self._text.count(chr(10), 0, self._at) + 1}: {reason}")


def _regex(code_point: int) -> str:
    return f"\\x{{{code_point:x}}}"


def _written(rules: dict[str, _Rule]) -> str:
    used = _reachable(rules)
    letter = "R" if _is_one_expression(used) else "r"  # llguidance makes a regular expression of an upper-case name
    names = {rule.name: f"{letter}{number}" for number, rule in enumerate(used.values())}
    return "\n".join([f"start: {names['root']}", *(_written_rule(rule, names) for rule in used.values()), ""])


def _written_rule(rule: _Rule, names: dict[str, str]) -> str:
    alternatives = (
        " ".join((names[item.rule] if item.rule else item.lark) + item.repetition for item in items) or '""'
        for items in rule.alternatives
    )
    return f"{names[rule.name]}: {' | '.join(alternatives)}"


def _reachable(rules: dict[str, _Rule]) -> dict[str, _Rule]:
    reached = {"root": rules["root"]}
    todo = [rules["root"]]
    while todo:
        for name in todo.pop().references():
            if name not in reached:
                reached[name] = rules[name]
                todo.append(rules[name])
    return reached


def _is_one_expression(rules: dict[str, _Rule]) -> bool:
    """No rule leads back to itself, and with all references written out it is not too long."""
    sizes: dict[str, int] = {}
    try:
        for name in TopologicalSorter({rule.name: set(rule.references()) for rule in rules.values()}).static_order():
            items = (item for items in rules[name].alternatives for item in items)
            sizes[name] = 1 + sum(sizes[item.rule] if item.rule else item.lark.count("/") // 2 for item in items)
    except CycleError:
        return False
    return sizes["root"] <= MAX_EXPRESSION
