"""A data directory, opened: lock, log, tree, node.

::

    DIR/lock      held by the process that serves; a lock, not a file's content
    DIR/format    which millstream made it
    DIR/log/      the log engine's files (elsewhere with several log directories)
    DIR/tree/     the LMDB environment

The directory is marked (``format``) last, after log and tree exist, so that a crash while it is
made leaves something that the next start simply makes again; once marked, a missing part is damage.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ..errors import WrongFormat
from ..host.disk import Disk
from ..host.host import Host, real_host
from ..storage.log.interface import LogEngine
from ..storage.log.leveldb import LevelDbLogEngine
from ..storage.log.memory import MemoryLogEngine
from ..storage.log.segments import SegmentsLogEngine
from ..storage.tree.lmdb_store import open_lmdb
from ..storage.tree.memory_store import MemoryStore
from .node import Node, NodeSettings, run_node


def open_log_engine(disk: Disk, kind: str, paths: Sequence[str], *, create: bool) -> LogEngine:
    """The engine ``kind`` on ``paths``."""
    if kind == "segments":
        return SegmentsLogEngine(disk, paths[0], create=create)
    return LevelDbLogEngine(paths[0], create=create)


logger = logging.getLogger(__name__)

FORMAT = b"millstream data directory 1\n"


@asynccontextmanager
async def open_node(
    path: str | None,
    settings: NodeSettings,
    *,
    log_engine: str = "auto",
    log_directories: tuple[str, ...] = (),
    host: Host | None = None,
) -> AsyncIterator[Node]:
    """A running node on the data directory ``path``, made if absent; None: in memory.

    Raises:
        DirectoryInUse: another process serves it.
        WrongFormat: it is not millstream's, or a newer millstream's, or of another log engine.
        Corrupt: something in it is damaged and no copy heals it.
    """
    host = host or real_host()
    if path is None:
        async with run_node(host, settings, MemoryLogEngine(), MemoryStore()) as node:
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
        log_paths = log_directories or (f"{path}/log",)
        engine = open_log_engine(disk, log_engine, log_paths, create=not made)
        try:
            store = open_lmdb(f"{path}/tree", create=not made)
        except BaseException:
            engine.close()
            raise
        if not made:
            disk.write_file_atomic(marker, FORMAT)
        async with run_node(host, settings, engine, store) as node:
            yield node
    finally:
        lock.release()
