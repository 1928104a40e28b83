"""The tables that clients work on, and the items and commands that they make for them."""

from __future__ import annotations

import itertools
import random

from ..actors.tables import TableRef
from ..errors import ResourceNotFound
from ..expressions import Condition, Update, compile_expressions
from ..model.keys import encode_component, table_key
from ..model.schema import KeyAttribute, KeySchema, NewIndex, NewTable, Projection, Table
from ..model.values import Item, encode_item, item_size_bytes
from ..storage.commands import Command, Delete, Put, UpdateItem
from ..storage.indexes import primary_key
from .history import Action
from .options import Options

MAIN = "main"
SCRATCH = "scratch"
#: The global index that comes and goes.
CHANGING_INDEX = "by_h"

KINDS = {"pk": "S", "sk": "N", "g": "S", "h": "S", "l": "N"}
_GROUPS = 4


def _key(*names: str) -> tuple[KeyAttribute, ...]:
    return tuple(KeyAttribute(name, KINDS[name]) for name in names)


def _projection(kind: str) -> Projection:
    return Projection(kind, ("v",) if kind == "INCLUDE" else ())


def is_served(ref: TableRef) -> bool:
    """Whether clients reach the table."""
    try:
        ref.partition_of(b"\0" * 8)
    except ResourceNotFound:
        return False
    return True


def changing_index(kind: str) -> NewIndex:
    """The index that the schema workload adds and removes."""
    return NewIndex(CHANGING_INDEX, KeySchema(_key("h")), _projection(kind))


def new_table(options: Options, name: str) -> NewTable:
    """The world's table, under ``name``."""
    table_range = _key("sk") if options.has_range else ()
    local, indexes = options.local_index, []
    if options.global_index is not None:
        key = KeySchema(_key("g"), _key("l"))
        indexes.append(NewIndex("by_g", key, _projection(options.global_index)))
    if options.second_index is not None:
        indexes.append(NewIndex("by_l", KeySchema(_key("l")), _projection(options.second_index)))
    return NewTable(
        "",
        name,
        KeySchema(_key("pk"), table_range),
        KINDS,
        local_indexes=(
            () if local is None else (NewIndex("local", KeySchema(_key("pk"), _key("l")),
                                               _projection(local)),)
        ),
        global_indexes=tuple(indexes),
        partition_count=options.partitions,
    )


class Keys:
    """The key space of one world, and draws from it."""

    __slots__ = ("_hot", "has_range", "hash_values", "range_values")

    def __init__(self, options: Options) -> None:
        self.has_range = options.has_range
        self._hot = options.hot
        self.hash_values = [f"p{number}" for number in range(options.hash_keys)]
        self.range_values = [str(number) for number in range(options.range_keys)]

    def draw(self, rng: random.Random) -> Item:
        """The key attributes of one item; one of them is drawn much more often."""
        if self._hot and rng.random() < self._hot:
            return self.of(self.hash_values[0], self.range_values[0])
        return self.of(rng.choice(self.hash_values), rng.choice(self.range_values))

    def of(self, hash_value: str, range_value: str) -> Item:
        """The key attributes as an item."""
        item: Item = {"pk": {"S": hash_value}}
        if self.has_range:
            item["sk"] = {"N": range_value}
        return item

    def all(self) -> list[Item]:
        """Every key."""
        pairs = itertools.product(self.hash_values, self.range_values)
        return [self.of(hash_value, range_value) for hash_value, range_value in pairs]


def collection_prefix(hash_value: str) -> bytes:
    """The beginning of the tree keys of all items with that partition key."""
    return table_key(encode_component("S", {"S": hash_value}), None)


def draw_action(
    rng: random.Random, key: Item, token: str, filler_bytes_max: int, seen: str | None
) -> Action:
    """A write to ``key`` whose value ``token`` nobody else writes; ``seen`` was read there."""
    condition = None
    if rng.random() < 0.3:
        condition = rng.choice(("absent", "present", seen or "present"))
    kind = rng.choice(("put", "put", "update", "update", "delete"))
    attributes = _attributes(rng, token, filler_bytes_max)
    if kind == "put":
        return Action("put", item={**key, **attributes}, condition=condition)
    if kind == "delete":
        return Action("delete", condition=condition)
    remove = tuple(name for name in ("g", "h", "l", "f") if name not in attributes)
    if rng.random() < 0.5:
        remove = ()
    return Action("update", item=key, set=attributes, remove=remove, condition=condition)


def _attributes(rng: random.Random, token: str, filler_bytes_max: int) -> Item:
    item: Item = {"v": {"S": token}}
    for name in ("g", "h"):
        if rng.random() < 0.8:
            item[name] = {"S": f"{name}{rng.randrange(_GROUPS)}"}
    if rng.random() < 0.7:
        item["l"] = {"N": str(rng.randrange(_GROUPS))}
    if filler_bytes_max:
        item["f"] = {"S": "f" * rng.randrange(1, filler_bytes_max)}
    return item


def command_of(table: Table, key: Item, action: Action) -> Command:
    """What the engine is asked for ``action``."""
    tree_key = primary_key(table, key)
    condition, values = _condition(action)
    if action.kind == "put":
        item = action.item
        return Put(tree_key, encode_item(item), item_size_bytes(item), condition, values)
    if action.kind == "delete":
        return Delete(tree_key, condition, values)
    update, more = _update(action)
    return UpdateItem(tree_key, key, update, condition, {**values, **more})


_CONDITIONS = {"absent": "attribute_not_exists(pk)", "present": "attribute_exists(pk)"}


def _condition(action: Action) -> tuple[Condition | None, Item]:
    if action.condition is None:
        return None, {}
    text = _CONDITIONS.get(action.condition)
    if text is not None:
        return compile_expressions(condition=text).condition, {}
    values: Item = {":seen": {"S": action.condition}}
    return compile_expressions(condition="v = :seen", values=values).condition, values


def _update(action: Action) -> tuple[Update | None, Item]:
    names = {f"#{name}": name for name in (*action.set, *action.remove)}
    values: Item = {f":{name}": value for name, value in action.set.items()}
    values[":one"] = {"N": "1"}
    text = "SET " + ", ".join(f"#{name} = :{name}" for name in action.set) + " ADD n :one"
    if action.remove:
        text += " REMOVE " + ", ".join(f"#{name}" for name in action.remove)
    return compile_expressions(update=text, names=names, values=values).update, values
