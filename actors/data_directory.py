"""A data directory, opened: lock, log, tree, node.

::

    DIR/lock      held by the process that serves; a lock, not a file's content
    DIR/format    which millstream made it
    DIR/log/      the log engine's files
    DIR/tree/     the LMDB environment

With log directories A, B, C the log is kept in ``A/log``, ``B/log`` and ``C/log``, and the tree in
``A/tree`` and ``B/tree``; DIR holds lock and format only. A directory is marked (``format``) last,
after log and tree exist, so that a crash while it is made leaves something that the next start
simply makes again; once marked, a missing part is damage, healed from a copy or refused.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, WrongFormat
from ..host.disk import Disk
from ..host.host import Host, real_host
from ..host.threads import run_all
from ..storage.log import open_log_engine, open_replicated_log_engine
from ..storage.log.identity import ENGINE_FILE, read_engine_identity
from ..storage.log.interface import LogEngine
from ..storage.log.memory import MemoryLogEngine
from ..storage.partition import decode_position
from ..storage.tree.interface import TreeStore
from ..storage.tree.lmdb_store import LmdbStore, open_lmdb
from ..storage.tree.memory_store import MemoryStore
from ..storage.tree.mirrored_store import MirroredStore, flushes_of
from .flusher import POSITION_PREFIX
from .node import Node, NodeSettings, run_node

if TYPE_CHECKING:
    from ..globaltables.policies import Resolver
    from .regions import RegionSettings

logger = logging.getLogger(__name__)

FORMAT = b"millstream data directory 1\n"
TREE_COPIES = 2
MEMORY_FLUSH_BYTES = 1024 * 1024


@asynccontextmanager
async def open_node(
    path: str | None,
    settings: NodeSettings,
    *,
    log_engine: str = "auto",
    log_directories: Sequence[str] = (),
    adopt_empty: bool = False,
    host: Host | None = None,
    regions: RegionSettings | None = None,
    resolvers: Mapping[tuple[str, str], Resolver] | None = None,
) -> AsyncIterator[Node]:
    """A running node on the data directory ``path``, made if absent; None: in memory.

    ``adopt_empty`` makes empty log directories copies, in the place of ones that are lost. It is
    for an operator to say: an empty directory may also be a disk that is not mounted. ``regions``
    makes it one region of several; ``resolvers``, by (namespace, table), decide conflicts between
    them where a table's policy says so.

    Raises:
        DirectoryInUse: another process serves it.
        WrongFormat: it is not millstream's, or a newer millstream's, or of another log engine.
        Corrupt: something in it is damaged and no copy heals it.
    """
    host = host or real_host()
    if path is None:
        # The twin applies a flush on the loop, so flushes are small.
        small = min(settings.memtable_bytes, MEMORY_FLUSH_BYTES)
        settings = msgspec.structs.replace(settings, memtable_bytes=small)
        async with run_node(
            host, settings, MemoryLogEngine(), MemoryStore(), regions, resolvers
        ) as node:
            yield node
        return
    disk = host.disk
    disk.make_directory(path)
    lock = disk.lock(f"{path}/lock")
    try:
        marker = f"{path}/format"
        made = disk.exists(marker)
        if made and disk.read_file(marker) != FORMAT:
            raise WrongFormat(f"{path} was not made by this version of millstream")
        engine = _open_log(
            host, path, log_engine, log_directories, made=made, adopt_empty=adopt_empty
        )
        try:
            store = _open_trees(disk, tree_paths(path, log_directories), engine, made=made)
        except BaseException:
            engine.close()
            raise
        if not made:
            disk.write_file_atomic(marker, FORMAT)
        async with run_node(host, settings, engine, store, regions, resolvers) as node:
            yield node
    finally:
        lock.release()


def log_paths(path: str, log_directories: Sequence[str]) -> list[str]:
    """Where the log's copies are."""
    return [f"{directory}/log" for directory in log_directories or (path,)]


def tree_paths(path: str, log_directories: Sequence[str]) -> list[str]:
    """Where the tree's copies are: with log directories, in the first two of them."""
    if not log_directories:
        return [f"{path}/tree"]
    return [f"{directory}/tree" for directory in log_directories[:TREE_COPIES]]


def _open_log(
    host: Host,
    path: str,
    kind: str,
    log_directories: Sequence[str],
    *,
    made: bool,
    adopt_empty: bool,
) -> LogEngine:
    paths = log_paths(path, log_directories)
    if kind == "auto":
        kind = _engine_found(host.disk, paths)
    for log_path in paths:
        host.disk.make_directory(log_path)
    if not log_directories:
        if made and read_engine_identity(host.disk, f"{paths[0]}/{ENGINE_FILE}") is None:
            raise Corrupt(f"the log in {paths[0]} is gone")
        return open_log_engine(host.disk, paths[0], kind)
    return open_replicated_log_engine(
        host.disk,
        paths,
        kind,
        run_all=run_all,
        new_set_id=None if made else host.entropy.token_bytes(8).hex(),
        adopt_empty=made and adopt_empty,
    )


def _engine_found(disk: Disk, paths: Sequence[str]) -> str:
    """The engine that the directories name; for new ones LevelDB where it is installed."""
    for path in paths:
        if disk.exists(f"{path}/{ENGINE_FILE}"):
            identity = read_engine_identity(disk, f"{path}/{ENGINE_FILE}")
            if identity is not None:
                return identity.engine
    return "leveldb" if importlib.util.find_spec("plyvel") is not None else "segments"


def _open_trees(
    disk: Disk, paths: Sequence[str], engine: LogEngine, *, made: bool
) -> TreeStore:
    """The tree, or both of its copies; one that is lost is made anew from the other."""
    if not made:
        stores = [_make_tree(disk, path) for path in paths]
    elif len(paths) == 1:
        stores = [open_lmdb(paths[0])]
    else:
        stores = _open_copies(disk, paths, engine)
    if len(stores) == 1:
        return stores[0]
    behind, ahead = sorted(stores, key=flushes_of)
    return MirroredStore(behind, ahead)


def _make_tree(disk: Disk, path: str) -> LmdbStore:
    """A new tree, or the one that an unfinished start has left.

    A power cut may leave one that cannot be opened. Nothing was promised of it; it is put aside.
    """
    try:
        return open_lmdb(path, create=True)
    except Corrupt as error:
        logger.warning("an unfinished tree in %s is put aside: %s", path, error)
        disk.rename(path, _unused(disk, f"{path}.unfinished"))
        return open_lmdb(path, create=True)


def _open_copies(disk: Disk, paths: Sequence[str], engine: LogEngine) -> list[LmdbStore]:
    found: list[LmdbStore | None] = []
    damage: Corrupt | None = None
    for path in paths:
        try:
            found.append(open_lmdb(path))
        except Corrupt as error:
            logger.error("the tree in %s cannot be used: %s", path, error)
            damage = error
            found.append(None)
    needed = _lsns_needed([store for store in found if store is not None], engine)
    for number, store in enumerate(found):
        if store is not None and not _reaches(store, needed):
            logger.error("the tree in %s is older than the logs reach", paths[number])
            damage = Corrupt("the tree is older than the logs reach")
            store.close()
            found[number] = None
    healthy = next((store for store in found if store is not None), None)
    if healthy is None:
        assert damage is not None
        raise damage
    stores: list[LmdbStore] = []
    for path, opened in zip(paths, found, strict=True):
        if opened is None:
            logger.warning("making the tree in %s anew from its copy", path)
            replace_tree(disk, path, healthy)
            opened = open_lmdb(path)
        stores.append(opened)
    return stores


def _lsns_needed(stores: Sequence[TreeStore], engine: LogEngine) -> dict[str, int]:
    """What each log demands of a tree that it shall bring up to date: the LSN before its first.

    Only of logs that some tree knows: one that none knows is new, or left behind by its table.
    """
    known = {log_id for store in stores for log_id in _positions(store)}
    return {log_id: engine.first(log_id) - 1 for log_id in engine.list() if log_id in known}


def _reaches(store: TreeStore, needed: Mapping[str, int]) -> bool:
    """Whether the logs begin early enough for this tree. One that was away may be too old."""
    positions = _positions(store)
    return all(positions.get(log_id, 0) >= lsn for log_id, lsn in needed.items())


def _positions(store: TreeStore) -> dict[str, int]:
    """Log -> the LSN up to which its entries are in the tree."""
    return {
        key.removeprefix(POSITION_PREFIX).decode(): decode_position(stored).lsn
        for key, stored in store.meta_range(POSITION_PREFIX)
    }


def replace_tree(disk: Disk, path: str, healthy: LmdbStore) -> None:
    """Put a copy of ``healthy`` in the place of the tree in ``path``; what was there is kept aside.

    A crash in between leaves the old tree, or none: then the next start does it again.
    """
    fresh = _unused(disk, f"{path}.new")
    healthy.copy_to(fresh)
    if disk.exists(path):
        disk.rename(path, _unused(disk, f"{path}.damaged"))
    disk.rename(fresh, path)
    disk.fsync_dir(path.rpartition("/")[0] or ".")


def _unused(disk: Disk, path: str) -> str:
    """``path`` with the first number that nothing has."""
    number = 1
    while disk.exists(f"{path}-{number}"):
        number += 1
    return f"{path}-{number}"
