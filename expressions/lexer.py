"""Text to tokens, for every expression language: there is one token grammar for all of them.

Keywords are keywords everywhere and in any case (an attribute called ``add`` needs a placeholder).
A character that begins no token becomes a token of its own kind, so that it is the parser who
reports it, in the order in which DynamoDB does.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

KEYWORDS: Final = frozenset(("AND", "OR", "NOT", "BETWEEN", "IN", "SET", "ADD", "DELETE", "REMOVE"))

# Kinds of token besides the keywords and the operators, which are their own kind.
NAME: Final = "name"  # an identifier, an attribute's or a function's
NAME_PLACEHOLDER: Final = "#"
VALUE_PLACEHOLDER: Final = ":"
INDEX: Final = "index"
UNKNOWN: Final = "unknown"
END: Final = "<EOF>"

_TOKEN: Final = re.compile(
    r"[ \t\r\n]+"
    r"|([A-Za-z][A-Za-z0-9_]*)"
    r"|(#[A-Za-z0-9_]+)"
    r"|(:[A-Za-z0-9_]+)"
    r"|(0|[1-9][0-9]*)"
    r"|(<>|<=|>=|[=<>+\-(),.\[\]])"
    r"|(.)",
    re.DOTALL,
)
_KIND_OF_GROUP: Final = ("", NAME, NAME_PLACEHOLDER, VALUE_PLACEHOLDER, INDEX, "", UNKNOWN)
_OPERATOR_GROUP: Final = 5


class Token(msgspec.Struct, frozen=True):
    """``text`` is the source's from ``start`` to ``end``; ``kind`` is what the parser looks at."""

    kind: str
    text: str
    start: int
    end: int


def tokenize(source: str) -> list[Token]:
    """The tokens of ``source``, always with one END token last."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(source):
        group = match.lastindex
        if group is None:
            continue
        text = match.group()
        if group == _OPERATOR_GROUP:
            kind = text
        elif group == 1 and text.upper() in KEYWORDS:
            kind = text.upper()
        else:
            kind = _KIND_OF_GROUP[group]
        tokens.append(Token(kind, text, match.start(), match.end()))
    tokens.append(Token(END, END, len(source), len(source)))
    return tokens
