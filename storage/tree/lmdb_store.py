"""The tree store on LMDB, a copy-on-write B+tree in C with one writer and lock-free readers.

Owned by ``BTree``; see ``interface`` for the contract and the threads, ``lmdb_layout`` for how rows
lie in it.

**Durability.** Never NOSYNC, NOMETASYNC or WRITEMAP: the order of LMDB's two syncs is what keeps
the file readable after a power cut.

**Map size.** The map is only reserved address space; the file grows as pages are used. We reserve
``TREE_MAP_BYTES`` at once, so that in practice no resizing ever happens. Where a process may not
have so much (``ulimit -v``) we halve until it fits; then a full map makes ``write`` raise
``StorageError``, and ``renew``, which is on the loop's thread where no iterator can be in use,
doubles the map. Open snapshots and a copy being made postpone that: they would be cut off.

**Reads** go through one cached transaction, so that a warm get is below a microsecond. Readahead is
off: reads are random.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

import lmdb

from ...errors import Corrupt, StorageError, WrongFormat
from ...limits import TREE_KEY_BYTES_MAX, TREE_MAP_BYTES, TREE_MAP_BYTES_MIN, TREE_READERS_MAX
from .interface import META_KEY_BYTES_MAX, TREE_ID_MAX, Change, Row, TreeStatistics
from .lmdb_file import check_file, create_directory, sync_directory
from .lmdb_layout import (
    DROPPED_ROWS,
    NEXT_LAYER_ROW,
    OWN_PREFIX,
    SLICE_BYTES,
    LmdbReader,
    layer_of,
    physical_key,
    prefix_of,
    storage_error,
)

FORMAT_VERSION = 1
_FORMAT_ROW = OWN_PREFIX + b"format"
_FORMAT_TEXT = b"millstream tree "
_BATCH_ROWS = 256


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

    __slots__ = ("_copying", "_environment", "_grow", "_snapshots", "_statistics")

    def __init__(self, environment: lmdb.Environment) -> None:
        super().__init__(environment.begin())
        self._environment = environment
        self._copying = False  # A worker is inside of copy_to, which reads the map.
        self._grow = False  # The map was found full; set by the worker, cleared by renew.
        self._snapshots: set[LmdbSnapshot] = set()
        self._statistics = self._measure()

    def write(
        self,
        changes: Mapping[int, Iterable[Change]],
        meta: Mapping[bytes, bytes | None],
        dropped: Collection[int] = (),
    ) -> None:
        try:
            # A scrub killed in another process would hold its pages, and grow the file, for good.
            self._environment.reader_check()
            with self._environment.begin(write=True) as txn:
                writer = _Writer(txn)
                for tree in sorted(changes):
                    assert 0 < tree <= TREE_ID_MAX, "a tree id is a positive 32-bit integer"
                    assert tree not in dropped, "a dropped tree is not written"
                    writer.apply(tree, changes[tree])
                assert all(len(key) <= META_KEY_BYTES_MAX for key in meta)
                writer.apply(0, sorted(meta.items()))
                for tree in dropped:
                    txn.put(DROPPED_ROWS + tree.to_bytes(4, "big"), b"")
        except lmdb.MapFullError as error:
            self._grow = True
            raise storage_error(error) from error
        except lmdb.Error as error:
            raise storage_error(error) from error

    def renew(self) -> None:
        try:
            self._txn.abort()
            if self._grow and not self._snapshots and not self._copying:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
                self._grow = False
            self._txn = self._environment.begin()
            self._statistics = self._measure()
        except lmdb.Error as error:
            raise storage_error(error) from error

    def drop_step(self, tree: int, rows_max: int) -> bool:
        assert rows_max > 0
        mark = DROPPED_ROWS + tree.to_bytes(4, "big")
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
            raise storage_error(error) from error
        except lmdb.Error as error:
            raise storage_error(error) from error

    def snapshot(self) -> LmdbSnapshot:
        try:
            return LmdbSnapshot(self._environment.begin(), self._snapshots)
        except lmdb.Error as error:
            raise storage_error(error) from error

    def copy_to(self, path: str) -> None:
        create_directory(path)
        self._copying = True
        try:
            self._environment.copy(path, compact=True)
            with lmdb.open(path, map_size=self._environment.info()["map_size"]) as copied:
                copied.sync(True)
        except lmdb.Error as error:
            raise storage_error(error) from error
        finally:
            self._copying = False
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

    def apply(self, tree: int, changes: Iterable[Change]) -> None:
        """Short puts go to LMDB many in a call, a third of the cost of single puts; the order among
        the changes is free, since each key occurs once.

        But not all in one call: LMDB's own work leaves the interpreter to the loop, preparing the
        rows does not, and the loop waits up to 5 ms whenever it asks for the interpreter while
        another thread computes. In small batches it is asked back at once.
        """
        prefix = prefix_of(tree, 0)
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
                if len(puts) == _BATCH_ROWS:
                    self._cursor.putmulti(puts)
                    puts.clear()
            elif self._cursor.set_key(prefix + key):
                self._cursor.delete()
        if puts:
            self._cursor.putmulti(puts)

    def _put_long(self, tree: int, key: bytes, value: bytes) -> None:
        layer = 0
        while len(key) > SLICE_BYTES:
            raw = physical_key(prefix_of(tree, layer), key)
            pointer = self._txn.get(raw)
            if pointer is None:
                layer = self._new_layer()
                self._txn.put(raw, layer.to_bytes(8, "big"))
            else:
                layer = layer_of(pointer, layer)
            key = key[SLICE_BYTES:]
        self._txn.put(physical_key(prefix_of(tree, layer), key), value)

    def _new_layer(self) -> int:
        counter = self._txn.get(NEXT_LAYER_ROW)
        layer = 1 if counter is None else int.from_bytes(counter, "big")
        self._txn.put(NEXT_LAYER_ROW, (layer + 1).to_bytes(8, "big"))
        return layer

    def _delete_long(self, tree: int, key: bytes) -> None:
        pointers: list[tuple[bytes, int]] = []  # The rows that lead to the key, and their layers.
        layer = 0
        while len(key) > SLICE_BYTES:
            raw = physical_key(prefix_of(tree, layer), key)
            pointer = self._txn.get(raw)
            if pointer is None:
                return
            layer = layer_of(pointer, layer)
            pointers.append((raw, layer))
            key = key[SLICE_BYTES:]
        self._txn.delete(physical_key(prefix_of(tree, layer), key))
        while pointers:
            raw, layer = pointers.pop()
            prefix = prefix_of(tree, layer)
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
        return LmdbStore(environment)
    except lmdb.Error as error:
        environment.close()
        raise storage_error(error) from error
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
            raise storage_error(error) from error


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
