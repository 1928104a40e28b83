"""The log engine over LevelDB (`plyvel`): one database for all logs of a node.

A commit is one synced write batch, so LevelDB's own log is the only thing written twice, by its
compaction. Every other write is synced, too: after a power cut only the last one can be torn, and
`leveldb_tail` cuts that off. So a trim writes nothing: its deletions ride in the next commits'
batches, a bounded number in each. Rows, where `id` is the log's identifier::

    "r"           -> format, number of logs     the database is one of ours
    "m" id        -> first LSN                  the log exists
    "e" n id lsn  -> entry                      n: length of id; LSN big-endian, so in order
    "d" id        -> nothing                    the log is deleted, its entries are being removed

The database belongs to this object alone (LevelDB holds a lock file). `paranoid_checks` and
`verify_checksums` are always on: without them one flipped bit has silently lost eight
acknowledged entries in the middle of a log. Damage to the very last write looks like a torn one;
so a lost tail shows only to a caller that remembers a position beyond it.

An iterator of LevelDB skips a block that it cannot read, and plyvel does not look at its status
when it ends (measured: a flipped bit in the last block made logs vanish, and shortened tails). A
point `get` does raise. So nothing is believed from an iterator alone: the number of logs is
stored, and behind a tail that was found a `get` of the next entry must find nothing.

Invariant: between a log's first LSN and its tail every row is there; a missing one is Corrupt,
at open for both ends, on reading for the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from ...errors import (
    Ambiguous,
    ConfigurationError,
    Conflict,
    Corrupt,
    DirectoryInUse,
    StorageError,
    Trimmed,
    WrongFormat,
)
from ...host.disk import Disk
from ...limits import (
    LOG_DELETE_CHUNK_ENTRIES,
    LOG_LEVELDB_CACHE_BYTES,
    LOG_LEVELDB_WRITE_BUFFER_BYTES,
)
from .entry import Link, check_append, check_entry, lsn_of
from .interface import Append, Entries, Entry, Names, Outcomes, check_log_id
from .leveldb_tail import cut_off, torn_tails

FORMAT: Final = 1

_ROOT_KEY: Final = b"r"
_ROOT: Final = struct.Struct(">BQ")
_LSN: Final = struct.Struct(">Q")


class _Log:
    """What is known of one log without asking LevelDB; replaced, never changed, on trim."""

    __slots__ = ("first", "last", "passed", "prefix", "tail")

    def __init__(self, prefix: bytes, first: int, tail: int, last: Link | None) -> None:
        # Of its entries' keys.
        self.prefix = prefix
        self.first = first
        self.tail = tail
        # What the next entry must continue; None only while no entry was ever written.
        self.last = last
        # The last entry that a read returned, so that the next read need not fetch it again.
        self.passed: Link | None = None


class _Garbage:
    """Entries of one log that are readable no more: rows from `start` below `stop`."""

    __slots__ = ("is_deleted", "start", "stop")

    def __init__(self, start: int, stop: int, *, is_deleted: bool) -> None:
        self.start = start
        self.stop = stop
        # The log is deleted, and its mark goes with the last row.
        self.is_deleted = is_deleted


class LevelDbLogEngine:
    """A `LogEngine` in the LevelDB database at `path`.

    Raises ConfigurationError without plyvel, DirectoryInUse if another process has the database,
    Corrupt if LevelDB or the first look at every log finds damage. `create` makes the database
    if it is not there; otherwise its absence is Corrupt.
    """

    __slots__ = (
        "_create",
        "_db",
        "_disk",
        "_garbage",
        "_logs",
        "_path",
        "_plyvel",
        "_refusal",
        "_trimmed",
    )

    def __init__(self, disk: Disk, path: str, *, create: bool) -> None:
        try:
            import plyvel
        except ImportError as error:
            raise ConfigurationError(
                "the LevelDB log engine needs plyvel, which is not installed here;"
                " install it or choose the engine 'segments'"
            ) from error
        self._plyvel: Any = plyvel
        # For LevelDB's own files, before it opens them; it writes them itself.
        self._disk = disk
        self._path = path
        self._create = create
        self._db: Any = None
        self._logs: dict[str, _Log] = {}
        # By a log's name: what the next commits delete, and the first LSNs they store.
        self._garbage: dict[bytes, _Garbage] = {}
        self._trimmed: dict[bytes, int] = {}
        # Why every call is refused; None while the engine serves.
        self._refusal: str | None = None
        self._open()

    def create(self, log_id: str, first_lsn: int) -> None:
        self._check_serving()
        name = check_log_id(log_id)
        assert first_lsn >= 1
        if log_id in self._logs:
            raise Conflict(f"log {log_id!r} exists", self._logs[log_id].tail)
        # Entries of a log that had this name, known as garbage or not, must not be this log's.
        self._garbage.pop(name, None)
        self._delete_all(_prefix(name))
        self._write(
            {b"m" + name: _LSN.pack(first_lsn), _ROOT_KEY: self._root(len(self._logs) + 1)},
            (b"d" + name,),
        )
        self._logs[log_id] = _Log(_prefix(name), first_lsn, first_lsn - 1, None)

    def delete(self, log_id: str) -> None:
        self._check_serving()
        log = self._logs.get(log_id)
        if log is None:
            return
        name = log_id.encode()
        # The mark is durable before the first entry goes: a crash in between ends as a deletion.
        self._write({b"d" + name: b"", _ROOT_KEY: self._root(len(self._logs) - 1)}, (b"m" + name,))
        del self._logs[log_id]
        self._trimmed.pop(name, None)
        self._discard(name, log.first, log.tail + 1, is_deleted=True)

    def list(self) -> Names:
        self._check_serving()
        return sorted(self._logs)

    def commit(self, appends: Sequence[Append]) -> Outcomes:
        self._check_serving()
        outcomes: Outcomes = []
        links: dict[str, Link] = {}
        batch = self._db.write_batch(sync=True)
        put = batch.put
        for append in appends:
            log_id = append.log_id
            log = self._logs.get(log_id)
            if log is None:
                outcomes.append(StorageError(f"no log {log_id!r}"))
                continue
            last = links.get(log_id, log.last)
            tail = log.tail if last is None else last.lsn
            if tail != append.expected_last:
                outcomes.append(Conflict(f"log {log_id!r} ends at {tail}", tail))
                continue
            link = check_append(append.entry, tail, last)
            put(log.prefix + _LSN.pack(tail + 1), append.entry)
            links[log_id] = link
            outcomes.append(None)
        if links:
            # More than is appended, or a log that is trimmed as it grows would grow for ever.
            self._collect(batch, LOG_DELETE_CHUNK_ENTRIES + len(appends))
            self._finish(batch)
            for log_id, link in links.items():
                log = self._logs[log_id]
                log.last = link
                log.tail = link.lsn
        return outcomes

    def read(self, log_id: str, start: int, max_bytes: int) -> Entries:
        log = self._log(log_id)
        if start < log.first:
            raise Trimmed(f"log {log_id!r} begins at {log.first}, not {start}", log.first)
        tail = log.tail
        if start > tail:
            return []
        link = log.passed
        if link is None or link.lsn != start - 1:
            link = self._link(log, start - 1) if start > log.first else None
        entries: Entries = []
        size_bytes = 0
        lsn = start
        prefix = log.prefix
        try:
            with self._db.iterator(
                start=prefix + _LSN.pack(start),
                stop=prefix + _LSN.pack(tail),
                include_stop=True,
                verify_checksums=True,
                fill_cache=False,
            ) as rows:
                for key, data in rows:
                    size_bytes += len(data)
                    if entries and size_bytes > max_bytes:
                        break
                    link = check_entry(data, link)
                    if key[-8:] != _LSN.pack(lsn) or link.lsn != lsn:
                        raise self._missing(log_id, lsn)
                    entries.append(Entry(lsn, data))
                    lsn += 1
                else:
                    if lsn != tail + 1:
                        raise self._missing(log_id, lsn)
        except self._plyvel.Error as error:
            raise self._translate(error) from error
        except RuntimeError as error:
            # What plyvel raises if another thread closed the database during the read.
            raise Ambiguous("the log engine is closed") from error
        except Corrupt:
            # A trim may have overtaken a read on another thread; then the rows are gone by policy.
            now = self._logs.get(log_id)
            if now is not None and start < now.first:
                raise Trimmed(f"log {log_id!r} begins at {now.first}", now.first) from None
            raise
        log.passed = link
        return entries

    def tail(self, log_id: str) -> int:
        return self._log(log_id).tail

    def first(self, log_id: str) -> int:
        return self._log(log_id).first

    def trim(self, log_id: str, before: int) -> None:
        log = self._log(log_id)
        before = min(before, log.tail)
        if before <= log.first:
            return
        # Readers see the new beginning before a row goes. The row that explains the deletions is in
        # the first of their batches; until then a crash undoes the trim.
        self._logs[log_id] = _Log(log.prefix, before, log.tail, log.last)
        name = log_id.encode()
        self._trimmed[name] = before
        self._discard(name, log.first, before, is_deleted=False)

    def truncate(self, log_id: str, after: int) -> None:
        """See `interface.CopyEngine`."""
        log = self._log(log_id)
        assert after >= log.first - 1
        if after >= log.tail:
            return
        last = self._link(log, after) if after >= log.first else None
        # From the end, so that an interruption leaves no hole.
        for lsn in range(log.tail, after, -LOG_DELETE_CHUNK_ENTRIES):
            lsns = range(lsn, max(after, lsn - LOG_DELETE_CHUNK_ENTRIES), -1)
            self._write({}, [log.prefix + _LSN.pack(lsn) for lsn in lsns])
        self._logs[log_id] = _Log(log.prefix, log.first, after, last)

    def reopen(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._logs = {}
        self._garbage = {}
        self._trimmed = {}
        self._refusal = "the log engine is closed"

    # Opening.

    def _open(self) -> None:
        try:
            self._db = self._open_database()
            self._load()
            # From now on its absence is a loss, also for `reopen`.
            self._create = False
        except self._plyvel.Error as error:
            self.close()
            raise self._translate(error) from error
        except OSError as error:
            self.close()
            raise StorageError(f"LevelDB at {self._path} cannot be read: {error}") from error
        except StorageError:
            self.close()
            raise
        self._refusal = None

    def _open_database(self) -> Any:
        # Raises Corrupt, before LevelDB could drop what it takes for empty space in its log.
        tails = torn_tails(self._disk, self._path)
        try:
            return self._open_plyvel()
        except self._plyvel.CorruptionError:
            # It had LevelDB's lock, so nobody else writes what looks torn.
            if not tails:
                raise
        for tail in tails:
            cut_off(self._disk, tail)
        return self._open_plyvel()

    def _open_plyvel(self) -> Any:
        return self._plyvel.DB(
            self._path,
            create_if_missing=self._create,
            paranoid_checks=True,
            write_buffer_size=LOG_LEVELDB_WRITE_BUFFER_BYTES,
            lru_cache_size=LOG_LEVELDB_CACHE_BYTES,
            # Entries are trimmed within a day; compressing them costs more than it saves.
            compression=None,
        )

    def _load(self) -> None:
        root = self._db.get(_ROOT_KEY, verify_checksums=True)
        if root is None:
            if not self._create:
                raise Corrupt(f"LevelDB at {self._path} has lost everything")
            self._write({_ROOT_KEY: self._root(0)}, ())
            root = self._root(0)
        format_, count = _ROOT.unpack(root)
        if format_ != FORMAT:
            raise WrongFormat(f"LevelDB at {self._path} has format {format_}, not {FORMAT}")
        with self._db.iterator(prefix=b"d", include_value=False, verify_checksums=True) as keys:
            doomed = [key[1:] for key in keys]
        with self._db.iterator(prefix=b"m", verify_checksums=True) as rows:
            logs = list(rows)
        if len(logs) != count:
            raise Corrupt(f"LevelDB at {self._path} shows {len(logs)} of {count} logs")
        for name in doomed:
            prefix = _prefix(name)
            lowest, highest = self._end(prefix, reverse=False), self._end(prefix, reverse=True)
            start, stop = (0, 0) if lowest is None or highest is None else (lowest, highest + 1)
            self._discard(name, start, stop, is_deleted=True)
        for key, value in logs:
            self._logs[key[1:].decode()] = self._load_log(key[1:], _LSN.unpack(value)[0])

    def _load_log(self, name: bytes, first: int) -> _Log:
        """Look at both ends of a log, and go on with a trim that was interrupted."""
        prefix = _prefix(name)
        lowest = self._end(prefix, reverse=False)
        highest = self._end(prefix, reverse=True)
        if not self._has(prefix, first):
            if highest is not None:
                raise self._missing(name.decode(), first)
            return _Log(prefix, first, first - 1, None)
        if lowest is None or highest is None or self._has(prefix, highest + 1):
            raise Corrupt(f"log {name!r} has more entries than LevelDB shows")
        if lowest < first:
            self._discard(name, lowest, first, is_deleted=False)
        log = _Log(prefix, first, highest, None)
        log.last = self._link(log, highest)
        return log

    def _end(self, prefix: bytes, *, reverse: bool) -> int | None:
        """The lowest or highest LSN that an iterator shows; not to be believed alone."""
        with self._db.iterator(
            prefix=prefix, reverse=reverse, include_value=False, verify_checksums=True
        ) as keys:
            key = next(keys, None)
        return None if key is None else _LSN.unpack(key[-8:])[0]

    def _has(self, prefix: bytes, lsn: int) -> bool:
        return self._db.get(prefix + _LSN.pack(lsn), verify_checksums=True) is not None

    # Rows.

    def _link(self, log: _Log, lsn: int) -> Link:
        try:
            data = self._db.get(log.prefix + _LSN.pack(lsn), verify_checksums=True)
        except self._plyvel.Error as error:
            raise self._translate(error) from error
        if data is None or lsn_of(data) != lsn:
            raise self._missing(log.prefix[2:].decode(), lsn)
        return check_entry(data, None)

    def _discard(self, name: bytes, start: int, stop: int, *, is_deleted: bool) -> None:
        """Have the next commits delete the rows from `start` below `stop` of a log."""
        garbage = self._garbage.get(name)
        if garbage is None:
            self._garbage[name] = _Garbage(start, stop, is_deleted=is_deleted)
        else:
            # A log goes from its beginning, so what is added continues what is there.
            garbage.stop = stop
            garbage.is_deleted = is_deleted

    def _collect(self, batch: Any, count: int) -> None:
        """Put pending trims into a batch, and up to `count` of the deletions they allow."""
        for name, first in self._trimmed.items():
            batch.put(b"m" + name, _LSN.pack(first))
        self._trimmed.clear()
        while self._garbage and count > 0:
            name, garbage = next(iter(self._garbage.items()))
            prefix = _prefix(name)
            stop = min(garbage.stop, garbage.start + count)
            for lsn in range(garbage.start, stop):
                batch.delete(prefix + _LSN.pack(lsn))
            count -= stop - garbage.start
            garbage.start = stop
            if stop == garbage.stop:
                if garbage.is_deleted:
                    batch.delete(b"d" + name)
                del self._garbage[name]

    def _delete_all(self, prefix: bytes) -> None:
        lowest = self._end(prefix, reverse=False)
        highest = self._end(prefix, reverse=True)
        if lowest is not None and highest is not None:
            for chunk in range(lowest, highest + 1, LOG_DELETE_CHUNK_ENTRIES):
                lsns = range(chunk, min(highest + 1, chunk + LOG_DELETE_CHUNK_ENTRIES))
                self._write({}, [prefix + _LSN.pack(lsn) for lsn in lsns])

    def _root(self, count: int) -> bytes:
        return _ROOT.pack(FORMAT, count)

    def _write(self, puts: dict[bytes, bytes], deletes: Sequence[bytes]) -> None:
        batch = self._db.write_batch(sync=True)
        for key in deletes:
            batch.delete(key)
        for key, value in puts.items():
            batch.put(key, value)
        self._finish(batch)

    def _finish(self, batch: Any) -> None:
        try:
            batch.write()
        except self._plyvel.Error as error:
            self._refusal = f"LevelDB could not write: {error}"
            raise Ambiguous(self._refusal) from error

    # Refusing.

    def _log(self, log_id: str) -> _Log:
        self._check_serving()
        try:
            return self._logs[log_id]
        except KeyError:
            raise StorageError(f"no log {log_id!r}") from None

    def _check_serving(self) -> None:
        if self._refusal is not None:
            raise Ambiguous(self._refusal)

    def _missing(self, log_id: str, lsn: int) -> Corrupt:
        return Corrupt(f"log {log_id!r} has no entry {lsn}, though it lies within the log")

    def _translate(self, error: Exception) -> StorageError:
        message = f"LevelDB at {self._path}: {error}"
        if isinstance(error, self._plyvel.IOError) and "lock " in str(error):
            return DirectoryInUse(message)
        # LevelDB's other refusals at open and on reading are all damage: a bad checksum, a file
        # that is missing or cut, a database that is not there.
        return Corrupt(message)


def _prefix(name: bytes) -> bytes:
    return b"e" + bytes((len(name),)) + name
