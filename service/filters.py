"""Filters as users write them: `state = RUNNING AND metrics.params <= 2e4`. Text to a tree, pure.

A part of the language of AIP-160 (google.aip.dev/160): AND, OR (which binds closer), NOT, brackets,
and comparisons by = != < <= > >= and : (contains). It must not know what fields there are.
Next: `store/columns.py`, which does.

>>> parse("NOT space = hybrid_mamba OR trials > 20")
Or(Not(Compare('space', '=', 'hybrid_mamba')), Compare('trials', '>', '20'))
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidRequest

LONGEST = 2000  # characters
DEEPEST = 16  # brackets and NOTs within each other
MOST = 64  # comparisons

OPERATORS = ("<=", ">=", "!=", "=", "<", ">", ":")
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator><=|>=|!=|=|<|>|:)
    |(?P<bracket>[()])
    |(?P<word>[^\s()<>=!:"']+))""",
    re.VERBOSE,
)


class Node:
    """A part of a filter."""


@dataclass(frozen=True)
class Compare(Node):
    """`value` is as it was written, without its quotes; `at` is where the comparison begins."""

    field: str
    operator: str
    value: str
    at: int = dataclasses.field(default=0, compare=False)

    def __repr__(self) -> str:
        return f"Compare({self.field!r}, {self.operator!r}, {self.value!r})"


class _Several(Node):
    def __init__(self, *parts: Node) -> None:
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.parts == self.parts

    def __hash__(self) -> int:
        return hash((type(self), self.parts))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"


class And(_Several):
    """All of them."""


class Or(_Several):
    """One of them."""


class Not(_Several):
    """Not this one."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str, field: str = "filter") -> Node | None:
    """None if it is empty. Raises InvalidRequest that says at which character."""
    if len(text) > LONGEST:
        raise InvalidRequest(f"longer than {LONGEST} characters", field)
    return _Parser(text, field).all()


class _Parser:
    """By recursive descent, one method for a rule of the grammar."""

    def __init__(self, text: str, field: str) -> None:
        self._field = field
        self._end = _Token("end", "", len(text))
        self._tokens = [*self._split(text), self._end]
        self._next = self._compared = 0

    def _split(self, text: str) -> Iterator[_Token]:
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                start = len(text) - len(text[at:].lstrip())
                raise self._wrong(f"{text[start : start + 20]!r} is not understood", start)
            kind = found.lastgroup or ""
            yield _Token(kind, found[kind], found.start(kind))
            at = found.end()

    def _wrong(self, what: str, at: int) -> InvalidRequest:
        return InvalidRequest(f"at character {at + 1}: {what}", self._field)

    @property
    def _now(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._now
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _is(self, text: str) -> bool:
        return self._now.kind in ("word", "bracket") and self._now.text == text

    def all(self) -> Node | None:
        if self._now is self._end:
            return None
        made = self._and(0)
        if self._now is not self._end:
            raise self._wrong(f"expected AND, OR or the end, not {self._now.text!r}", self._now.at)
        return made

    def _and(self, depth: int) -> Node:
        parts = [self._or(depth)]
        while self._is("AND"):
            self._take()
            parts.append(self._or(depth))
        return And(*parts) if len(parts) > 1 else parts[0]

    def _or(self, depth: int) -> Node:
        parts = [self._term(depth)]
        while self._is("OR"):
            self._take()
            parts.append(self._term(depth))
        return Or(*parts) if len(parts) > 1 else parts[0]

    def _term(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise self._wrong(f"more than {DEEPEST} within each other", self._now.at)
        if self._is("NOT"):
            self._take()
            return Not(self._term(depth + 1))
        if self._is("("):
            opened = self._take()
            made = self._and(depth + 1)
            if not self._is(")"):
                raise self._wrong("this bracket is not closed", opened.at)
            self._take()
            return made
        return self._compare()

    def _compare(self) -> Node:
        self._compared += 1
        if self._compared > MOST:
            raise self._wrong(f"more than {MOST} comparisons", self._now.at)
        name = self._take()
        if name.kind != "word" or name.text in ("AND", "OR", "NOT"):
            raise self._wrong("expected a field, as in state = RUNNING", name.at)
        operator = self._take()
        if operator.kind != "operator":
            said = f"expected one of {' '.join(OPERATORS)} after {name.text!r}"
            raise self._wrong(said, operator.at)
        value = self._take()
        if value.kind == "text":
            return Compare(
                name.text, operator.text, re.sub(r"\\(.)", r"\1", value.text[1:-1]), name.at
            )
        if value.kind != "word":
            raise self._wrong(f"expected a value after {operator.text!r}", value.at)
        return Compare(name.text, operator.text, value.text, name.at)
