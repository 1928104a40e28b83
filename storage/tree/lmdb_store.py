"""The tree store on LMDB, a copy-on-write B+tree in C with one writer and lock-free readers.

Owned by ``BTree``; see ``interface`` for the contract and the threads.

**One database, no named ones.** A physical key is ``tree (4 bytes) + layer (8 bytes) + slice``, big
endian. A named LMDB database per tree would cost a handle and a slot in every transaction for each
of thousands of tables, a record in the main database at each commit, an opening inside of a
transaction each, and ``mdb_drop`` frees a whole tree in one transaction however large. With the
prefix, opening costs the same whatever is stored, a tree exists as soon as it has a row, and
dropping is a sequence of small range deletions. The price is twelve bytes a row.

**Layers** (Masstree: "Cache Craftiness for Fast Multicore Key-Value Storage", EuroSys 2012).
LMDB's keys end at 511 bytes. A key of up to 479 bytes is one slice in layer 0. A longer one is cut
after every 480 bytes::

    key shorter than 480      prefix + key               -> value
    key of 480 exactly        prefix + key      + 0x00   -> value
    key longer than 480       prefix + key[:480] + 0x01  -> number of the layer that holds the rest

A shorter slice sorts before what it is a prefix of, and tag 0 before tag 1, hence the byte order of
physical keys, layer by layer, is the order of the keys at any length. A layer has exactly one
pointer and at least one row; deleting its last row deletes the pointer too. Layer numbers come from
a counter in the same transaction, so a layer's number is above that of the layer pointing to it.

**Durability.** Never NOSYNC, NOMETASYNC or WRITEMAP: the order of LMDB's two syncs is what keeps
the file readable after a power cut.

**Map size.** The map is only reserved address space; the file grows as pages are used. We reserve
``TREE_MAP_BYTES`` at once, so that in practice no resizing ever happens. Where a process may not
have so much (``ulimit -v``) we halve until it fits; then a full map makes ``write`` raise
``StorageError``, and ``renew``, which is on the loop's thread where no iterator can be in use,
doubles the map. Open snapshots postpone that: they would be cut off.

**Reads** go through one cached transaction; a warm get is about a microsecond. It returns
``bytes``, not a view into the map: the copy of 1 KB costs less than the ``memoryview`` object, and
a view dies with the transaction while an answer may live on. Readahead is off: reads are random.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile

import lmdb

from ...errors import Corrupt, StorageError, WrongFormat
from ...limits import TREE_KEY_BYTES_MAX, TREE_MAP_BYTES, TREE_MAP_BYTES_MIN, TREE_READERS_MAX
from .interface import META_KEY_BYTES_MAX, TREE_ID_MAX, Change, Row, TreeStatistics
from .lmdb_file import check_file, create_directory, sync_directory

FORMAT_VERSION = 1
SLICE_BYTES = 480
PREFIX_BYTES = 12
_WHOLE = b"\x00"  # The tag of a key that ends with its slice.
_LAYER = b"\x01"  # The tag of a slice that goes on in a layer.
_TAGGED_BYTES = PREFIX_BYTES + SLICE_BYTES + 1

# Tree 0 is the store's own: its layer 0 holds the caller's meta, layer 1 the rows below.
_META = bytes(PREFIX_BYTES)
_OWN = (1).to_bytes(PREFIX_BYTES, "big")
_FORMAT_ROW = _OWN + b"format"
_NEXT_LAYER_ROW = _OWN + b"next layer"
_DROPPED_ROWS = _OWN + b"dropped "
_FORMAT_TEXT = b"millstream tree "


def _prefix(tree: int, layer: int) -> bytes:
    return ((tree << 64) | layer).to_bytes(PREFIX_BYTES, "big")


def _after(prefix: bytes) -> bytes:
    """The smallest physical key above everything that begins with ``prefix``."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def _physical(prefix: bytes, key: bytes) -> bytes:
    """Where ``key`` begins: its own row, or the pointer row of its first slice."""
    if len(key) < SLICE_BYTES:
        return prefix + key
    if len(key) == SLICE_BYTES:
        return prefix + key + _WHOLE
    return prefix + key[:SLICE_BYTES] + _LAYER


def _layer_of(pointer: bytes, above: int) -> int:
    """The layer number in a pointer row. Above its parent's, or a loop in a damaged file would be
    followed for ever."""
    layer = int.from_bytes(pointer, "big")
    if len(pointer) != 8 or layer <= above:
        raise Corrupt("the tree has a damaged layer pointer")
    return layer


class LmdbReader:
    """Reads one LMDB transaction. The invariant: ``_txn`` is a read transaction or closed."""

    __slots__ = ("_txn",)

    def __init__(self, txn: lmdb.Transaction[bytes]) -> None:
        self._txn = txn

    def get(self, tree: int, key: bytes) -> bytes | None:
        try:
            if len(key) < SLICE_BYTES:
                return self._txn.get(((tree << 64).to_bytes(12, "big")) + key)
            return self._get_long(tree, key)
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def _get_long(self, tree: int, key: bytes) -> bytes | None:
        layer = 0
        while len(key) > SLICE_BYTES:
            pointer = self._txn.get(_physical(_prefix(tree, layer), key))
            if pointer is None:
                return None
            layer = _layer_of(pointer, layer)
            key = key[SLICE_BYTES:]
        return self._txn.get(_physical(_prefix(tree, layer), key))

    def range(
        self, tree: int, low: bytes, high: bytes | None, reverse: bool = False
    ) -> Iterator[Row]:
        if high is not None and high <= low:
            return iter(())
        if reverse:
            return self._backward(tree, 0, b"", low, high)
        return self._forward(tree, 0, b"", low, high)

    def _forward(
        self, tree: int, layer: int, head: bytes, low: bytes, high: bytes | None
    ) -> Iterator[Row]:
        """The rows of a layer and of those under it. ``low`` and ``high`` are what is left of the
        bounds inside of this layer, ``head`` the slices that lead to it."""
        start, stop, last = _bounds(_prefix(tree, layer), low, high)
        try:
            cursor = self._txn.cursor()
            if not cursor.set_range(start):
                return
            for raw, value in cursor.iternext():
                if raw >= stop:
                    return
                if len(raw) < PREFIX_BYTES + SLICE_BYTES:
                    yield (head + raw[PREFIX_BYTES:] if head else raw[PREFIX_BYTES:]), value
                elif _is_pointer(raw):
                    yield from self._forward(
                        tree,
                        _layer_of(value, layer),
                        head + raw[PREFIX_BYTES:-1],
                        low[SLICE_BYTES:] if raw == start else b"",
                        high[SLICE_BYTES:] if high is not None and raw == last else None,
                    )
                else:
                    yield head + raw[PREFIX_BYTES:-1], value
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def _backward(
        self, tree: int, layer: int, head: bytes, low: bytes, high: bytes | None
    ) -> Iterator[Row]:
        start, stop, last = _bounds(_prefix(tree, layer), low, high)
        try:
            cursor = self._txn.cursor()
            if not (cursor.prev() if cursor.set_range(stop) else cursor.last()):
                return
            for raw, value in cursor.iterprev():
                if raw < start:
                    return
                if len(raw) < PREFIX_BYTES + SLICE_BYTES:
                    yield (head + raw[PREFIX_BYTES:] if head else raw[PREFIX_BYTES:]), value
                elif _is_pointer(raw):
                    yield from self._backward(
                        tree,
                        _layer_of(value, layer),
                        head + raw[PREFIX_BYTES:-1],
                        low[SLICE_BYTES:] if raw == start else b"",
                        high[SLICE_BYTES:] if high is not None and raw == last else None,
                    )
                else:
                    yield head + raw[PREFIX_BYTES:-1], value
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def meta_get(self, key: bytes) -> bytes | None:
        return self.get(0, key)

    def meta_range(self, prefix: bytes) -> list[Row]:
        return list(takewhile(lambda row: row[0].startswith(prefix), self.range(0, prefix, None)))

    def dropping(self) -> list[int]:
        at = len(_DROPPED_ROWS)
        return [int.from_bytes(raw[at:], "big") for raw, _ in self._raw(_DROPPED_ROWS)]

    def trees(self) -> list[int]:
        """Skips from tree to tree, so the cost is one search for each."""
        found = []
        dropped = self.dropping()
        try:
            cursor = self._txn.cursor()
            there = cursor.set_range(_prefix(1, 0))
            while there:
                tree = int.from_bytes(cursor.key()[:4], "big")
                if tree not in dropped:
                    found.append(tree)
                there = tree < TREE_ID_MAX and cursor.set_range(_prefix(tree + 1, 0))
        except lmdb.Error as error:
            raise _storage_error(error) from error
        return found

    def _raw(self, prefix: bytes) -> Iterator[Row]:
        """The physical rows that begin with ``prefix``."""
        try:
            cursor = self._txn.cursor()
            if cursor.set_range(prefix):
                for raw, value in cursor.iternext():
                    if not raw.startswith(prefix):
                        return
                    yield raw, value
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def structure(self, tree: int) -> Iterator[str]:
        counter = self._txn.get(_NEXT_LAYER_ROW) or bytes(8)
        next_layer = int.from_bytes(counter, "big")
        pointed: set[int] = {0}
        seen: set[int] = {0}
        before = b""
        for raw, value in self._raw(tree.to_bytes(4, "big")):
            if raw <= before:
                yield f"the row {raw.hex()} does not come after {before.hex()}"
            before = raw
            layer = int.from_bytes(raw[4:PREFIX_BYTES], "big")
            seen.add(layer)
            tagged = len(raw) == _TAGGED_BYTES and raw[-1:] in (_WHOLE, _LAYER)
            if not tagged and not PREFIX_BYTES <= len(raw) < PREFIX_BYTES + SLICE_BYTES:
                yield f"the row {raw.hex()} has neither the length nor the tag of a slice"
            elif len(raw) == PREFIX_BYTES and layer:
                yield f"layer {layer} has a row without a rest"
            elif _is_pointer(raw):
                below = int.from_bytes(value, "big")
                if len(value) != 8 or not layer < below < next_layer:
                    yield f"the pointer row {raw.hex()} names an impossible layer"
                elif below in pointed:
                    yield f"layer {below} has two pointers"
                else:
                    pointed.add(below)
        yield from (f"layer {layer} is empty" for layer in sorted(pointed - seen))
        yield from (f"layer {layer} has no pointer" for layer in sorted(seen - pointed))


def _bounds(prefix: bytes, low: bytes, high: bytes | None) -> tuple[bytes, bytes, bytes]:
    """The physical bounds [start, stop) of a range inside of one layer.

    The third is the pointer row below which ``high`` itself lies, or empty: that row is inside of
    the physical bounds, but only a part of its layer is inside of the range.
    """
    start = _physical(prefix, low)
    if high is None:
        return start, _after(prefix), b""
    stop = _physical(prefix, high)
    if len(high) <= SLICE_BYTES:
        return start, stop, b""
    return start, stop + b"\x00", stop


def _is_pointer(raw: bytes) -> bool:
    return len(raw) == _TAGGED_BYTES and raw[-1] == 1


def _storage_error(error: lmdb.Error) -> StorageError:
    """LMDB's error in our words."""
    if isinstance(error, lmdb.VersionMismatchError):
        return WrongFormat(f"the tree was written by another LMDB: {error}")
    damage = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError)
    if isinstance(error, damage):
        return Corrupt(f"the tree is damaged: {error}")
    return StorageError(f"the tree: {error}")


class LmdbSnapshot(LmdbReader):
    """A transaction of its own, at the state of its opening."""

    __slots__ = ("_open",)

    def __init__(self, txn: lmdb.Transaction[bytes], open_snapshots: set[LmdbSnapshot]) -> None:
        super().__init__(txn)
        self._open = open_snapshots
        open_snapshots.add(self)

    def close(self) -> None:
        self._open.discard(self)
        self._txn.abort()


class LmdbStore(LmdbReader):
    """See the module's text. Made by ``open_lmdb``."""

    __slots__ = ("_environment", "_grow", "_path", "_snapshots", "_statistics")

    def __init__(self, environment: lmdb.Environment, path: str) -> None:
        super().__init__(environment.begin())
        self._environment = environment
        self._path = path
        self._grow = False  # The map was found full; set by the worker, cleared by renew.
        self._snapshots: set[LmdbSnapshot] = set()
        self._statistics = self._measure()

    def write(
        self,
        changes: Mapping[int, Sequence[Change]],
        meta: Mapping[bytes, bytes | None],
        dropped: Collection[int] = (),
    ) -> None:
        try:
            with self._environment.begin(write=True) as txn:
                writer = _Writer(txn)
                for tree in sorted(changes):
                    assert 0 < tree <= TREE_ID_MAX, "a tree id is a positive 32-bit integer"
                    assert tree not in dropped, "a dropped tree is not written"
                    writer.apply(tree, changes[tree])
                assert all(len(key) <= META_KEY_BYTES_MAX for key in meta)
                writer.apply(0, sorted(meta.items()))
                for tree in dropped:
                    txn.put(_DROPPED_ROWS + tree.to_bytes(4, "big"), b"")
        except lmdb.MapFullError as error:
            self._grow = True
            raise _storage_error(error) from error
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def renew(self) -> None:
        try:
            self._txn.abort()
            if self._grow and not self._snapshots:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
                self._grow = False
            self._txn = self._environment.begin()
            self._statistics = self._measure()
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def drop_step(self, tree: int, rows_max: int) -> bool:
        assert rows_max > 0
        mark = _DROPPED_ROWS + tree.to_bytes(4, "big")
        prefix = tree.to_bytes(4, "big")
        try:
            with self._environment.begin(write=True) as txn:
                assert txn.get(mark) is not None, "only a dropped tree is taken away"
                cursor = txn.cursor()
                there = cursor.set_range(prefix)
                while there and cursor.key().startswith(prefix):
                    if rows_max == 0:
                        return False
                    cursor.delete()  # It steps to the next row.
                    there = cursor.key() != b""
                    rows_max -= 1
                txn.delete(mark)
                return True
        except lmdb.MapFullError as error:
            self._grow = True
            raise _storage_error(error) from error
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def snapshot(self) -> LmdbSnapshot:
        try:
            return LmdbSnapshot(self._environment.begin(), self._snapshots)
        except lmdb.Error as error:
            raise _storage_error(error) from error

    def copy_to(self, path: str) -> None:
        create_directory(path)
        try:
            self._environment.copy(path, compact=True)
            copy = lmdb.open(path, map_size=self._environment.info()["map_size"])
            copy.sync(True)
            copy.close()
        except lmdb.Error as error:
            raise _storage_error(error) from error
        sync_directory(path)

    def statistics(self) -> TreeStatistics:
        return self._statistics

    def _measure(self) -> TreeStatistics:
        status, info = self._environment.stat(), self._environment.info()
        return TreeStatistics(
            rows=status["entries"],
            depth=status["depth"],
            file_bytes=(info["last_pgno"] + 1) * status["psize"],
            map_bytes=info["map_size"],
        )

    def close(self) -> None:
        for snapshot in list(self._snapshots):
            snapshot.close()
        self._environment.close()


class _Writer:
    """Applies changes inside of one write transaction."""

    __slots__ = ("_cursor", "_txn")

    def __init__(self, txn: lmdb.Transaction[bytes]) -> None:
        self._txn = txn
        self._cursor = txn.cursor()

    def apply(self, tree: int, changes: Sequence[Change]) -> None:
        """Short puts go to LMDB in one call, a third of the cost of single puts; the order among
        the changes is free, since each key occurs once."""
        prefix = _prefix(tree, 0)
        puts: list[Row] = []
        before: bytes | None = None
        for key, value in changes:
            assert before is None or before < key, "changes come in strictly increasing key order"
            before = key
            if len(key) >= SLICE_BYTES:
                assert len(key) <= TREE_KEY_BYTES_MAX
                if value is None:
                    self._delete_long(tree, key)
                else:
                    self._put_long(tree, key, value)
            elif value is not None:
                puts.append((prefix + key, value))
            elif self._cursor.set_key(prefix + key):
                self._cursor.delete()
        if puts:
            self._cursor.putmulti(puts)

    def _put_long(self, tree: int, key: bytes, value: bytes) -> None:
        layer = 0
        while len(key) > SLICE_BYTES:
            raw = _physical(_prefix(tree, layer), key)
            pointer = self._txn.get(raw)
            if pointer is None:
                layer = self._new_layer()
                self._txn.put(raw, layer.to_bytes(8, "big"))
            else:
                layer = _layer_of(pointer, layer)
            key = key[SLICE_BYTES:]
        self._txn.put(_physical(_prefix(tree, layer), key), value)

    def _new_layer(self) -> int:
        counter = self._txn.get(_NEXT_LAYER_ROW)
        layer = 1 if counter is None else int.from_bytes(counter, "big")
        self._txn.put(_NEXT_LAYER_ROW, (layer + 1).to_bytes(8, "big"))
        return layer

    def _delete_long(self, tree: int, key: bytes) -> None:
        pointers: list[tuple[bytes, int]] = []  # The rows that lead to the key, and their layers.
        layer = 0
        while len(key) > SLICE_BYTES:
            raw = _physical(_prefix(tree, layer), key)
            pointer = self._txn.get(raw)
            if pointer is None:
                return
            layer = _layer_of(pointer, layer)
            pointers.append((raw, layer))
            key = key[SLICE_BYTES:]
        self._txn.delete(_physical(_prefix(tree, layer), key))
        while pointers:
            raw, layer = pointers.pop()
            prefix = _prefix(tree, layer)
            if self._cursor.set_range(prefix) and self._cursor.key().startswith(prefix):
                return
            self._txn.delete(raw)


def open_lmdb(path: str, *, create: bool = False, read_only: bool = False) -> LmdbStore:
    """Opens the tree store in the directory ``path``; start-up does not grow with the data.

    ``create`` makes a missing or empty one; without it an absent or empty store is ``Corrupt``, so
    that a lost tree is never taken for a new one. ``read_only`` is for scrubbing beside a serving
    process. Raises ``Corrupt`` for a cut file or a bad meta page, ``WrongFormat`` for a newer
    format or a foreign file, ``StorageError`` for the operating system's reasons.
    """
    assert not (create and read_only)
    if create:
        create_directory(path)
    map_bytes = check_file(os.path.join(path, "data.mdb"), create) or 0
    environment = _open_environment(path, read_only, map_bytes)
    try:
        _check_format(environment, create)
        if create:
            sync_directory(path)
        return LmdbStore(environment, path)
    except lmdb.Error as error:
        environment.close()
        raise _storage_error(error) from error
    except StorageError:
        environment.close()
        raise


def _open_environment(path: str, read_only: bool, file_bytes: int) -> lmdb.Environment:
    map_bytes = TREE_MAP_BYTES
    while True:
        try:
            return lmdb.open(
                path,
                map_size=map_bytes,
                readonly=read_only,
                sync=True,
                metasync=True,
                writemap=False,
                readahead=False,
                max_readers=TREE_READERS_MAX,
                max_dbs=0,
            )
        except (lmdb.MemoryError, OverflowError) as error:
            map_bytes //= 2
            if map_bytes < max(file_bytes, TREE_MAP_BYTES_MIN):
                raise StorageError(f"no address space for the tree's map: {error}") from error
        except lmdb.Error as error:
            raise _storage_error(error) from error


def _check_format(environment: lmdb.Environment, create: bool) -> None:
    with environment.begin() as txn:
        text = txn.get(_FORMAT_ROW)
        rows = environment.stat()["entries"]
    if text is None and rows > 0:
        raise WrongFormat("this LMDB file was not written by millstream")
    if text is None and not create:
        raise Corrupt("the tree is empty where one was expected")
    if text is None:
        with environment.begin(write=True) as txn:
            txn.put(_FORMAT_ROW, _FORMAT_TEXT + str(FORMAT_VERSION).encode())
        return
    number = text.removeprefix(_FORMAT_TEXT)
    if not text.startswith(_FORMAT_TEXT) or not number.isdigit():
        raise WrongFormat("the tree's format row is not millstream's")
    if int(number) > FORMAT_VERSION:
        raise WrongFormat(
            f"the tree has format {int(number)}; this millstream knows up to {FORMAT_VERSION}"
        )
