"""What becomes of a write that lost a conflict between regions. Pure.

A policy is asked once for each conflict, in the region whose write lost, with the item that lost
and the item that won (None: deleted); what it answers is one more local write there, unless it is
the winner as it is. Because no other region asks it about the same conflict, whether regions end
equal never depends on it: versions decide what is stored, and its answer is a version like any
other. It decides only *what* they end with. See ``docs/global-tables.md``.

A policy is stored, and told to other regions, as text: ``""``, ``"attribute NAME"``,
``"resolver"``. No policy reads a clock or keeps a state.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from ..errors import InvalidRequest, MillstreamError
from ..model import numbers
from ..model.python_values import from_item, to_item
from ..model.schema import Table
from ..model.values import AttributeValue, Item, check_name
from ..storage.checks import check_new_item

#: What a user registers: (the item written here, the item from there) -> what is to be.
Resolver: TypeAlias = Callable[[dict[str, Any] | None, dict[str, Any] | None], Any]

LAST_WRITER_WINS = "last_writer_wins"
RESOLVER = "resolver"
_ATTRIBUTE = "attribute "
_TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}").fullmatch


class ByAttribute(msgspec.Struct, frozen=True):
    """The item with the higher value of attribute ``name`` wins. Made by ``by_attribute``."""

    name: str

    def __call__(self, loser: Item | None, winner: Item | None) -> Item | None:
        """The one that has the higher value; ``winner`` where values do not decide."""
        if loser is None or winner is None:
            return winner
        lost, won = loser.get(self.name), winner.get(self.name)
        if lost is None or won is None:
            return winner
        return loser if _is_higher(lost, won) else winner


def by_attribute(name: str) -> ByAttribute:
    """The policy by which the item with the higher value of the attribute ``name`` wins.

    Numbers are compared as numbers, strings by their UTF-8, binaries by their bytes. The later
    version wins where one side is a deletion, lacks the attribute or has another type in it, and
    where both are equal. Raises InvalidRequest for a name that no attribute can have.
    """
    if not isinstance(name, str):
        raise InvalidRequest(f"An attribute name is a str, not {name!r}")
    try:
        check_name(name)
    except UnicodeEncodeError:
        raise InvalidRequest("An attribute name is valid Unicode") from None
    return ByAttribute(name)


def last_writer_wins(loser: Item | None, winner: Item | None) -> Item | None:
    """The policy where there is none: the later version stays."""
    return winner


def _is_higher(one: AttributeValue, other: AttributeValue) -> bool:
    match one, other:
        case {"N": a}, {"N": b}:
            return numbers.compare(a, b) > 0
        case {"S": a}, {"S": b}:
            # Code points are in the order of their UTF-8.
            return bool(a > b)
        case {"B": a}, {"B": b}:
            return b64decode(a) > b64decode(b)
    return False


# As text.


def policy_text(policy: str | ByAttribute | None) -> str:
    """How a policy is stored. Takes what users say; raises InvalidRequest for what is none."""
    match policy:
        case None | "" | "last_writer_wins":
            return ""
        case "resolver":
            return RESOLVER
        case ByAttribute():
            return _ATTRIBUTE + by_attribute(policy.name).name
        case str() if policy.startswith(_ATTRIBUTE):
            return _ATTRIBUTE + by_attribute(policy.removeprefix(_ATTRIBUTE)).name
    raise InvalidRequest(
        "A conflict policy is 'last_writer_wins', 'attribute NAME' (in Python: by_attribute(NAME))"
        " or 'resolver'"
    )


def attribute_of(text: str) -> ByAttribute | None:
    """The policy by attribute that a stored text stands for; None for any other."""
    if text.startswith(_ATTRIBUTE):
        return ByAttribute(text.removeprefix(_ATTRIBUTE))
    return None


def shown(text: str) -> str:
    """A stored policy as users are shown it, and may say it."""
    return text or LAST_WRITER_WINS


def check_conflicts_table(name: str, table: str) -> None:
    """Raise InvalidRequest unless conflicts of ``table`` can be kept in a table of this name."""
    if not isinstance(name, str) or not _TABLE_NAME(name):
        raise InvalidRequest(
            "The name of a conflicts table has 3 to 255 of the characters a-z, A-Z, 0-9, '_', '-'"
            " and '.'"
        )
    if name == table:
        raise InvalidRequest("A table cannot be its own conflicts table")


# Resolvers in Python.


class ResolverFailed(MillstreamError):
    """A resolver has raised, or its answer cannot be stored. The text has no item's values."""


def resolved(
    resolver: Resolver, table: Table, loser: Item | None, winner: Item | None
) -> Item | None:
    """What ``resolver`` makes of a conflict in ``table``; ``winner`` itself if it is just that.

    The resolver gets values of its own, so that whatever it does to them stays with it. It should
    be pure: the same for the same two items. Nothing here depends on that (see the module's text).

    Raises ResolverFailed; the winner is to stay then.
    """
    local = None if loser is None else from_item(loser)
    remote = None if winner is None else from_item(winner)
    try:
        answer = resolver(local, remote)
    except Exception as error:  # noqa: BLE001 - the user's code
        raise ResolverFailed(f"it raised {_described(error)}") from None
    if answer is None:
        return None
    if not isinstance(answer, dict):
        raise ResolverFailed(f"it returned {type(answer).__qualname__}, not a dict or None")
    try:
        item = to_item(answer)
    except Exception:  # noqa: BLE001 - the values are objects of the user's
        raise ResolverFailed("it returned what is no item") from None
    try:
        check_new_item(table, item)
    except InvalidRequest:
        # The refusal may name what is in the item.
        raise ResolverFailed("it returned what this table cannot hold") from None
    known = winner if winner is not None else loser
    if known is not None and any(item[name] != known[name] for name in table.key.names()):
        raise ResolverFailed("it returned an item of another key")
    return winner if item == winner else item


def _described(error: Exception) -> str:
    """The error's type and place: its text may have values of the item in it."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" in {code.co_name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return type(error).__qualname__ + place
