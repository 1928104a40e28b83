"""What transactions work on: lists, registers and accounts in two tables, and commands for them.

A *list* is an item with a list attribute ``e``; a *register* one whose value is ``v``; an *account*
holds a balance ``n``. Every write also moves the item about in its indexes (``g``, ``h``, ``l``).
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

import msgspec

from ..expressions import Condition, Update, compile_expressions
from ..model.schema import Table
from ..model.values import AttributeValue, Item, decode_item, encode_item, item_size_bytes
from ..model.versions import NO_VERSION
from ..storage.commands import Check, CheckVersion, Delete, Put, UpdateItem
from ..storage.indexes import primary_key
from ..storage.rows import Row
from .options import Options
from .tables import MAIN
from .transaction_history import Seen

OTHER = "other"
TABLES = (MAIN, OTHER)
INITIAL_BALANCE = 100
_GROUPS = 4


class Place(msgspec.Struct, frozen=True):
    """One item: where it is, and what kind of thing (list, register, account)."""

    table: str
    key: Item
    kind: str

    @property
    def name(self) -> str:
        """As histories call it."""
        return "/".join([self.table, *(next(iter(value.values())) for value in self.key.values())])


class Places:
    """Every place of a world."""

    __slots__ = ("_has_range", "accounts", "lists", "registers")

    def __init__(self, options: Options) -> None:
        wanted = options.transactions
        assert wanted is not None
        self._has_range = options.has_range
        self.lists = self._make("list", wanted.lists)
        self.registers = self._make("register", wanted.registers)
        self.accounts = self._make("account", wanted.accounts)

    def _make(self, kind: str, count: int) -> list[Place]:
        return [
            Place(TABLES[number % 2], self._key(kind, number // 2), kind)
            for number in range(count)
        ]

    def _key(self, kind: str, number: int) -> Item:
        if not self._has_range:
            return {"pk": {"S": f"{kind}{number}"}}
        # Two of a kind share their partition key, and so their partition.
        return {"pk": {"S": f"{kind}{number // 2}"}, "sk": {"N": str(number % 2)}}

    def probe(self, table: str) -> Place:
        """An item that only the prober writes."""
        key: Item = {"pk": {"S": "probe"}}
        if self._has_range:
            key["sk"] = {"N": "0"}
        return Place(table, key, "probe")


def seen_in(place: Place, row: Row | None) -> Seen:
    """What a row shows to a reader of ``place``."""
    if place.kind == "list":
        if row is None:
            return ()
        return tuple(element["S"] for element in decode_item(row.body)["e"]["L"])
    if row is None:
        return None
    return str(decode_item(row.body)["v"]["S"])


def balance_in(row: Row | None) -> int:
    """An account's balance."""
    assert row is not None, "accounts are never removed"
    return int(decode_item(row.body)["n"]["N"])


def _drawn(rng: random.Random, value: str) -> Item:
    return {
        "v": {"S": value},
        "g": {"S": f"g{rng.randrange(_GROUPS)}"},
        "h": {"S": f"h{rng.randrange(_GROUPS)}"},
        "l": {"N": str(rng.randrange(_GROUPS))},
    }


@lru_cache
def _update(text: str) -> Update:
    kinds: Item = {":e": {"L": []}, ":none": {"L": []}, ":n": {"N": "1"}}
    update = compile_expressions(
        update=text,
        names={name: name[1:] for name in re.findall(r"#\w+", text)},
        values={name: kinds.get(name, {"S": ""}) for name in re.findall(r":\w+", text)},
    ).update
    assert update is not None
    return update


@lru_cache
def condition_of(text: str) -> Condition:
    """A compiled condition on ``e``, ``v`` or ``n``, compared with ``:seen``."""
    values: Item = {":seen": {"S": ""}} if ":seen" in text else {}
    if "n >=" in text:
        values = {":seen": {"N": "0"}}
    condition = compile_expressions(condition=text, values=values or None).condition
    assert condition is not None
    return condition


PRESENT = "attribute_exists(pk)"
ABSENT = "attribute_not_exists(pk)"
_MOVE = "#v = :v, #g = :g, #h = :h, #l = :l"
_APPEND = f"SET #e = list_append(if_not_exists(#e, :none), :e), {_MOVE}"
_ADD = f"SET {_MOVE} ADD #n :n"


class Maker:
    """Makes commands for places of one table."""

    __slots__ = ("_rng", "_table")

    def __init__(self, table: Table, rng: random.Random) -> None:
        self._table = table
        self._rng = rng

    def key(self, place: Place) -> bytes:
        """Its tree key."""
        return primary_key(self._table, place.key)

    def append(self, place: Place, value: str) -> UpdateItem:
        """The value at the list's end, whatever the list is."""
        values: Item = {":e": {"L": [{"S": value}]}, ":none": {"L": []}}
        return self._updated(place, _APPEND, values, value)

    def add(self, place: Place, amount: int, mark: str) -> UpdateItem:
        """``amount`` more in the account; if it is less, only what is there."""
        update = self._updated(place, _ADD, {":n": {"N": str(amount)}}, mark)
        if amount >= 0:
            return update
        return msgspec.structs.replace(
            update,
            condition=condition_of("n >= :seen"),
            values={**update.values, ":seen": {"N": str(-amount)}},
        )

    def _updated(self, place: Place, text: str, values: Item, value: str) -> UpdateItem:
        drawn = _drawn(self._rng, value)
        values = {**values, **{f":{name}": drawn[name] for name in drawn}}
        return UpdateItem(self.key(place), place.key, _update(text), None, values)

    def whole_list(self, place: Place, seen: tuple[str, ...], value: str) -> Put:
        """The list that was read and the value, as one put; the caller adds what guards it."""
        elements = [{"S": element} for element in (*seen, value)]
        return self._put({**place.key, **_drawn(self._rng, value), "e": {"L": elements}})

    def put(self, place: Place, value: str) -> Put:
        """The register's new value."""
        return self._put({**place.key, **_drawn(self._rng, value)})

    def balance(self, place: Place) -> Put:
        """The account as it begins."""
        drawn = _drawn(self._rng, "begin")
        put = self._put({**place.key, **drawn, "n": {"N": str(INITIAL_BALANCE)}})
        return msgspec.structs.replace(put, condition=condition_of(ABSENT))

    def _put(self, item: Item) -> Put:
        return Put(
            primary_key(self._table, item), encode_item(item), item_size_bytes(item)
        )

    def delete(self, place: Place) -> Delete:
        """The register's removal."""
        return Delete(self.key(place))

    def check(self, place: Place, seen: tuple[str, ...] | None) -> Check:
        """That the list is as it was ``seen``; None: that there is one."""
        if not seen:
            return Check(self.key(place), condition_of(PRESENT if seen is None else ABSENT))
        return Check(self.key(place), condition_of("e = :seen"), {":seen": as_list(seen)})

    def check_version(self, place: Place, row: Row | None) -> CheckVersion:
        """That it is still the row that was read."""
        return CheckVersion(self.key(place), NO_VERSION if row is None else row.version)


def as_list(seen: tuple[str, ...]) -> AttributeValue:
    """A list's values as an attribute value."""
    return {"L": [{"S": element} for element in seen]}
