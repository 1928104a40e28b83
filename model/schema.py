"""What a table is: keys, indexes, partitions, settings, as one frozen value.

A ``Table`` is the catalog's row and the only description of a table that any room reads. It is
replaced as a whole by the catalog's commit and never changed in place, so that a holder sees one
moment. Names inside are snake_case; ``api/operations`` renders DynamoDB's spelling.

The catalog stores it as MessagePack with the field names, so that a later version may add fields
with defaults; ``format`` says which version wrote it and a newer one is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from enum import Enum

import msgspec

TABLE_FORMAT = 1
HASH_SPACE_END = 1 << 64


class Status(Enum):
    """DynamoDB's TableStatus and IndexStatus."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    DELETING = "DELETING"


class KeyAttribute(msgspec.Struct, frozen=True):
    """One attribute of a key. ``kind`` is ``S``, ``N`` or ``B``."""

    name: str
    kind: str


class KeySchema(msgspec.Struct, frozen=True):
    """The attributes of a primary or an index key.

    A table has one HASH and at most one RANGE attribute; a global index up to four of each.
    """

    hash: tuple[KeyAttribute, ...]
    range: tuple[KeyAttribute, ...] = ()

    def attributes(self) -> tuple[KeyAttribute, ...]:
        return self.hash + self.range

    def names(self) -> tuple[str, ...]:
        return tuple(attribute.name for attribute in self.hash + self.range)


class Projection(msgspec.Struct, frozen=True):
    """Which attributes an index holds. ``kind`` is ``ALL``, ``KEYS_ONLY`` or ``INCLUDE``."""

    kind: str
    attributes: tuple[str, ...] = ()


class Throughput(msgspec.Struct, frozen=True):
    """Provisioned units a second, with what DescribeTable says of past changes.

    Times are milliseconds since the epoch.
    """

    read_units: int
    write_units: int
    decreases_today: int = 0
    last_increase_ms: int | None = None
    last_decrease_ms: int | None = None


class UnitLimits(msgspec.Struct, frozen=True):
    """OnDemandThroughput: the most request units a second; -1 or None means no limit."""

    read_units: int | None = None
    write_units: int | None = None


class WarmUnits(msgspec.Struct, frozen=True):
    """WarmThroughput: units a second that are ready at once."""

    read_units: int
    write_units: int


class Partition(msgspec.Struct, frozen=True):
    """The hashes from ``low`` to ``last``, both included, of a table or index, with their log."""

    log_id: str
    low: int
    last: int


class LocalIndex(msgspec.Struct, frozen=True):
    """A local secondary index: its entries live in the table's partitions."""

    name: str
    key: KeySchema
    projection: Projection
    tree: int


class GlobalIndex(msgspec.Struct, frozen=True):
    """A global secondary index: partitions of its own, fed from the table's logs.

    ``backfilling`` is True from its creation on an existing table until every item has been
    carried over. ``key`` may have up to four HASH and four RANGE attributes.
    """

    name: str
    key: KeySchema
    projection: Projection
    tree: int
    partitions: tuple[Partition, ...]
    status: Status
    backfilling: bool = False
    throughput: Throughput | None = None
    unit_limits: UnitLimits | None = None
    warm_units: WarmUnits | None = None


class StreamSettings(msgspec.Struct, frozen=True):
    """A table's stream: what its records show, and the label that tells it from earlier ones.

    ``view`` is DynamoDB's StreamViewType; ``label`` the time of enabling, unique for the table.
    """

    view: str
    label: str

    @property
    def shows_old(self) -> bool:
        """Whether records show the item as it was before."""
        return self.view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")

    @property
    def shows_new(self) -> bool:
        """Whether records show the item as it is after."""
        return self.view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")


class Table(msgspec.Struct, frozen=True):
    """One table. ``attribute_kinds`` are the AttributeDefinitions, in the order given.

    ``stream`` is the stream that is enabled; ``stream_label`` that of the last one there was.
    ``group_id`` names the group of a global table (``model.groups``), whose deleted items leave
    tombstones in the tree ``tombstones``, since the schema version ``global_since``. One that
    ``is_shut`` serves nobody: it is being filled, or is about to go.
    ``disassociation_protection`` counts while the table is a replica of a global table.
    """

    namespace: str
    name: str
    table_id: str
    status: Status
    created_ms: int
    key: KeySchema
    attribute_kinds: dict[str, str]
    tree: int
    partitions: tuple[Partition, ...]
    schema_version: int = 1
    local_indexes: tuple[LocalIndex, ...] = ()
    global_indexes: tuple[GlobalIndex, ...] = ()
    billing_mode: str = "PROVISIONED"
    billing_changed_ms: int | None = None
    throughput: Throughput | None = None
    unit_limits: UnitLimits | None = None
    warm_units: WarmUnits | None = None
    table_class: str = "STANDARD"
    table_class_changed_ms: int | None = None
    deletion_protection: bool = False
    disassociation_protection: bool = True
    tags: dict[str, str] = {}
    stream: StreamSettings | None = None
    stream_label: str | None = None
    group_id: str | None = None
    tombstones: int = 0
    global_since: int = 0
    is_shut: bool = False
    format: int = TABLE_FORMAT

    def local_index(self, name: str) -> LocalIndex | None:
        return next((index for index in self.local_indexes if index.name == name), None)

    def global_index(self, name: str) -> GlobalIndex | None:
        return next((index for index in self.global_indexes if index.name == name), None)

    def log_ids(self) -> Iterator[str]:
        """Every log of the table and of its global indexes."""
        for partition in self.partitions:
            yield partition.log_id
        for index in self.global_indexes:
            for partition in index.partitions:
                yield partition.log_id

    def trees(self) -> Iterator[int]:
        """Every tree of the table and of its indexes."""
        yield self.tree
        if self.tombstones:
            yield self.tombstones
        for local in self.local_indexes:
            yield local.tree
        for index in self.global_indexes:
            yield index.tree


class NewIndex(msgspec.Struct, frozen=True):
    """A validated request for a secondary index, before it has a tree or partitions."""

    name: str
    key: KeySchema
    projection: Projection
    throughput: Throughput | None = None
    unit_limits: UnitLimits | None = None
    warm_units: WarmUnits | None = None


class NewTable(msgspec.Struct, frozen=True):
    """A validated CreateTable. ``partition_count`` None means the node's default.

    With ``group_id`` it is a replica of a global table, shut until it is filled.
    """

    namespace: str
    name: str
    key: KeySchema
    attribute_kinds: dict[str, str]
    local_indexes: tuple[NewIndex, ...] = ()
    global_indexes: tuple[NewIndex, ...] = ()
    billing_mode: str = "PROVISIONED"
    throughput: Throughput | None = None
    unit_limits: UnitLimits | None = None
    warm_units: WarmUnits | None = None
    table_class: str = "STANDARD"
    deletion_protection: bool = False
    tags: dict[str, str] = {}
    partition_count: int | None = None
    stream_view: str | None = None
    group_id: str | None = None


class TableChange(msgspec.Struct, frozen=True):
    """A validated change of a table.

    ``table`` is the wanted row, edited from the one whose ``schema_version`` it still carries: the
    catalog refuses it if the table has moved on since (the caller then starts again). Indexes are
    created and deleted by name; everything else in ``table`` is taken as it is. At most one of
    ``create_index`` and ``delete_index`` is set, as DynamoDB has it. ``enable_stream`` is a view.
    """

    table: Table
    create_index: NewIndex | None = None
    delete_index: str | None = None
    enable_stream: str | None = None
    disable_stream: bool = False


def hash_ranges(count: int) -> list[tuple[int, int]]:
    """Cut the 64-bit hash space into ``count`` even ranges, first and last hash of each."""
    assert count >= 1
    edges = [HASH_SPACE_END * i // count for i in range(count + 1)]
    return [(low, high - 1) for low, high in itertools.pairwise(edges)]
