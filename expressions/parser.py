"""Tokens to raw trees: what the text says, before any name is looked up or any rule is checked.

Recursive descent, but on a stack of our own: each rule is a generator that yields the rules it
needs, and ``_run`` drives them. So 4096 bytes of ``((((`` cost memory on the heap and never the
interpreter's stack. The grammar is DynamoDB's::

    condition   ::= conjunction (OR conjunction)*
    conjunction ::= negation (AND negation)*
    negation    ::= NOT* primary
    primary     ::= operand compare operand | operand BETWEEN operand AND operand
                  | operand IN '(' operand (',' operand)* ')' | function | '(' condition ')'
    operand     ::= path | value | function | '(' operand ')'
    function    ::= name '(' operand (',' operand)* ')'
    path        ::= id ('.' id | '[' index ']')*
    projection  ::= path (',' path)*
    update      ::= (SET set (',' set)* | REMOVE path (',' path)*
                  | ADD path value (',' path value)* | DELETE path value (',' path value)*)+
    set         ::= path '=' (operand | arithmetic)
    arithmetic  ::= operand ('+' | '-') operand | '(' arithmetic ')'

Only a syntax error is raised here. Redundant parentheses and the number of operators are noted,
because DynamoDB reports them only for text that parses.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import InvalidRequest
from .lexer import END, INDEX, NAME, NAME_PLACEHOLDER, VALUE_PLACEHOLDER, Token, tokenize

_COMPARATORS: Final = frozenset(("=", "<>", "<", "<=", ">", ">="))
_SECTIONS: Final = frozenset(("SET", "REMOVE", "ADD", "DELETE"))


class RawPath(msgspec.Struct, frozen=True):
    """Elements as written: names, ``#placeholders`` and list indexes."""

    elements: tuple[str | int, ...]


class RawValue(msgspec.Struct, frozen=True):
    """A ``:placeholder``, colon included."""

    name: str


class RawFunction(msgspec.Struct, frozen=True):
    """A call of a function that may not exist."""

    name: str
    arguments: tuple[Raw, ...]


class RawArithmetic(msgspec.Struct, frozen=True):
    """``left + right`` or ``left - right``."""

    operator: str
    left: Raw
    right: Raw


class RawLeaf(msgspec.Struct, frozen=True):
    """A comparison, ``BETWEEN`` or ``IN``, and its operands in the order of the text."""

    operator: str
    operands: tuple[Raw, ...]


class RawBoolean(msgspec.Struct, frozen=True):
    """``AND`` or ``OR`` of two or more parts, or ``NOT`` of one."""

    operator: str
    parts: tuple[Raw, ...]


class RawGroup(msgspec.Struct, frozen=True):
    """Parentheses. ``core`` is what the innermost of directly nested ones hold."""

    core: Raw


class RawAction(msgspec.Struct, frozen=True):
    """One action of an update; ``section`` is the keyword, ``value`` is None for REMOVE."""

    section: str
    path: RawPath
    value: Raw | None


Raw = RawPath | RawValue | RawFunction | RawArithmetic | RawLeaf | RawBoolean | RawGroup
_Operands = (RawPath, RawValue, RawFunction)
_Rule: TypeAlias = Generator[Any, Any, Any]


class Parsed(msgspec.Struct, frozen=True):
    """What one expression says. Exactly one of the first three is set, by the language."""

    condition: Raw | None
    paths: tuple[RawPath, ...]
    actions: tuple[RawAction, ...]
    sections: tuple[str, ...]
    redundant_parentheses: bool
    operators: int


def parse_condition(source: str) -> Parsed:
    """Parse a condition, filter or key condition. Raises InvalidRequest without a prefix."""
    parser = _Parser(source)
    root = _run(parser.condition(in_group=False))
    parser.expect(END)
    return parser.parsed(condition=root)


def parse_projection(source: str) -> Parsed:
    """Parse a ProjectionExpression. Raises InvalidRequest without a prefix."""
    parser = _Parser(source)
    paths = [parser.path()]
    while parser.accept(","):
        paths.append(parser.path())
    parser.expect(END)
    return parser.parsed(paths=tuple(paths))


def parse_update(source: str) -> Parsed:
    """Parse an UpdateExpression. Raises InvalidRequest without a prefix."""
    parser = _Parser(source)
    sections: list[str] = []
    actions: list[RawAction] = []
    while parser.kind() != END:
        section = parser.kind()
        if section not in _SECTIONS:
            parser.fail()
        parser.advance()
        sections.append(section)
        actions.append(parser.action(section))
        while parser.accept(","):
            actions.append(parser.action(section))
    return parser.parsed(actions=tuple(actions), sections=tuple(sections))


def core_of(raw: Raw) -> Raw:
    """What is inside any parentheses."""
    return raw.core if isinstance(raw, RawGroup) else raw


def _run(rule: _Rule) -> Any:
    """Drive a rule and all the rules that it yields; the depth is the list's."""
    stack = [rule]
    result: Any = None
    while stack:
        try:
            needed = stack[-1].send(result)
        except StopIteration as finished:
            stack.pop()
            result = finished.value
        else:
            stack.append(needed)
            result = None
    return result


class _Parser:
    __slots__ = ("_operators", "_position", "_redundant", "_source", "_tokens")

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens: list[Token] = tokenize(source)
        self._position = 0  # of the next token; never beyond the END token
        self._redundant = False
        self._operators = 0  # comparisons, logical and arithmetic operators, functions

    # Tokens.

    def kind(self) -> str:
        return self._tokens[self._position].kind

    def advance(self) -> Token:
        token = self._tokens[self._position]
        assert token.kind != END
        self._position += 1
        return token

    def accept(self, kind: str) -> bool:
        if self._tokens[self._position].kind != kind:
            return False
        self._position += 1
        return True

    def expect(self, kind: str) -> Token:
        token = self._tokens[self._position]
        if token.kind != kind:
            self.fail()
        if kind != END:
            self._position += 1
        return token

    def fail(self) -> None:
        """Report the next token. "near" runs from the token before it to the token after it."""
        position = self._position
        token = self._tokens[position]
        first = self._tokens[position - 1] if position else token
        last = token
        if token.kind != END and self._tokens[position + 1].kind != END:
            last = self._tokens[position + 1]
        near = self._source[first.start : last.end]
        raise InvalidRequest(f'Syntax error; token: "{token.text}", near: "{near.rstrip()}"')

    def parsed(
        self,
        condition: Raw | None = None,
        paths: tuple[RawPath, ...] = (),
        actions: tuple[RawAction, ...] = (),
        sections: tuple[str, ...] = (),
    ) -> Parsed:
        return Parsed(condition, paths, actions, sections, self._redundant, self._operators)

    # Rules without recursion.

    def path(self) -> RawPath:
        elements: list[str | int] = [self._identifier()]
        while True:
            if self.accept("."):
                elements.append(self._identifier())
            elif self.accept("["):
                elements.append(int(self.expect(INDEX).text))
                self.expect("]")
            else:
                return RawPath(tuple(elements))

    def _identifier(self) -> str:
        if self.kind() not in (NAME, NAME_PLACEHOLDER):
            self.fail()
        return self.advance().text

    def action(self, section: str) -> RawAction:
        path = self.path()
        if section == "REMOVE":
            return RawAction(section, path, None)
        if section == "SET":
            self.expect("=")
            return RawAction(section, path, _run(self._assigned()))
        return RawAction(section, path, RawValue(self.expect(VALUE_PLACEHOLDER).text))

    # Rules with recursion: generators, for _run.

    def condition(self, in_group: bool) -> _Rule:
        """With ``in_group`` a bare operand is allowed where ``)`` follows: ``(a) = :v``."""
        parts = [(yield self._conjunction(in_group))]
        while self.accept("OR"):
            self._operators += 1
            parts.append((yield self._conjunction(in_group=False)))
        return parts[0] if len(parts) == 1 else RawBoolean("OR", tuple(parts))

    def _conjunction(self, in_group: bool) -> _Rule:
        parts = [(yield self._negation(in_group))]
        while self.accept("AND"):
            self._operators += 1
            parts.append((yield self._negation(in_group=False)))
        return parts[0] if len(parts) == 1 else RawBoolean("AND", tuple(parts))

    def _negation(self, in_group: bool) -> _Rule:
        negations = 0
        while self.accept("NOT"):
            negations += 1
        self._operators += negations
        part = yield self._primary(in_group and not negations)
        # An even number of NOTs says nothing, but a key condition still has to refuse it.
        if negations and negations % 2 == 0:
            part = RawBoolean("NOT", (part,))
        return RawBoolean("NOT", (part,)) if negations else part

    def _primary(self, in_group: bool) -> _Rule:
        if self.kind() == "(":
            left = yield self._group(self.condition(in_group=True))
        else:
            left = yield self._operand()
        core = core_of(left)
        if not isinstance(core, _Operands):
            return left
        kind = self.kind()
        if kind in _COMPARATORS:
            self.advance()
            self._operators += 1
            return RawLeaf(kind, (left, (yield self._operand())))
        if kind == "BETWEEN":
            self.advance()
            self._operators += 1
            low = yield self._operand()
            self.expect("AND")
            return RawLeaf(kind, (left, low, (yield self._operand())))
        if kind == "IN":
            self.advance()
            self._operators += 1
            choices = yield self._list()
            return RawLeaf(kind, (left, *choices))
        if not isinstance(core, RawFunction) and not (in_group and kind == ")"):
            self.fail()
        return left

    def _operand(self) -> _Rule:
        kind = self.kind()
        if kind == "(":
            return (yield self._group(self._operand()))
        if kind == VALUE_PLACEHOLDER:
            return RawValue(self.advance().text)
        if kind == NAME and self._tokens[self._position + 1].kind == "(":
            name = self.advance().text
            self._operators += 1
            return RawFunction(name, (yield self._list()))
        return self.path()

    def _list(self) -> _Rule:
        self.expect("(")
        operands = [(yield self._operand())]
        while self.accept(","):
            operands.append((yield self._operand()))
        self.expect(")")
        return tuple(operands)

    def _group(self, rule: _Rule) -> _Rule:
        self.expect("(")
        inner = yield rule
        self.expect(")")
        if isinstance(inner, RawGroup):
            self._redundant = True
        return RawGroup(core_of(inner))

    def _assigned(self) -> _Rule:
        if self.kind() == "(":
            left = yield self._group(self._assigned())
        else:
            left = yield self._operand()
        kind = self.kind()
        if kind in ("+", "-") and not isinstance(core_of(left), RawArithmetic):
            self.advance()
            self._operators += 1
            return RawArithmetic(kind, left, (yield self._operand()))
        return left
