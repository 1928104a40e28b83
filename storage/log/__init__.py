"""The log: a dense, conditional, durable run of entries per partition, behind one interface.

`open_log_engine` opens the log of one directory, `open_replicated_log_engine` one that is kept in
several directories. The directory's owner (the node) holds its lock; nothing is locked here but
what LevelDB locks itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from functools import partial
from typing import Final

from ...errors import ConfigurationError, Corrupt, WrongFormat
from ...host.disk import Disk
from .copy_set import RunAll
from .entry import EntryHeader, chain_hash, decode_entry, encode_entry
from .identity import (
    COPY_FILE,
    ENGINE_FILE,
    EngineIdentity,
    read_engine_identity,
    write_identity,
)
from .interface import Append, CopyEngine, Entry, LogEngine
from .making import make_engine, remove_unused
from .memory import MemoryLogEngine
from .replicated import ReplicatedLogEngine

__all__ = [
    "ENGINE_KINDS",
    "Append",
    "CopyEngine",
    "Entry",
    "EntryHeader",
    "LogEngine",
    "MemoryLogEngine",
    "ReplicatedLogEngine",
    "chain_hash",
    "decode_entry",
    "encode_entry",
    "open_log_engine",
    "open_replicated_log_engine",
]

# Each keeps its data in a folder of its own name, so that none can mistake another's files.
ENGINE_KINDS: Final = ("leveldb", "segments")


def open_log_engine(disk: Disk, path: str, kind: str) -> CopyEngine:
    """The log engine in directory `path`, made if the directory holds none yet.

    What a crash has left of an engine that was being made is made again; a caller that knows the
    directory to be complete has looked for its name (`identity.ENGINE_FILE`) before. Raises
    ConfigurationError for a kind that is unknown or not installed, WrongFormat if the directory
    belongs to another engine or a newer millstream, Corrupt if it is damaged.
    """
    if kind not in ENGINE_KINDS:
        raise ConfigurationError(f"no log engine {kind!r}; there are {', '.join(ENGINE_KINDS)}")
    disk.make_directory(path)
    name_path = posixpath.join(path, ENGINE_FILE)
    identity = read_engine_identity(disk, name_path)
    folder = posixpath.join(path, kind)
    if identity is not None:
        if identity.engine != kind:
            raise WrongFormat(f"{path} holds a log of engine {identity.engine!r}, not {kind!r}")
        return _open_kind(disk, folder, kind, create=False)
    if disk.exists(posixpath.join(path, COPY_FILE)):
        # A directory becomes a copy when it has an engine, so the engine's name was lost since.
        raise Corrupt(f"the log in {path} is gone")
    for other in ENGINE_KINDS:
        if other != kind:
            _make_way(disk, path, other)
    engine = make_engine(disk, folder, partial(_open_kind, disk, folder, kind, create=True))
    # Last, so that a directory with a name has an engine: its absence is a loss from now on.
    try:
        write_identity(disk, name_path, EngineIdentity(kind))
    except OSError:
        engine.close()
        raise
    return engine


def _make_way(disk: Disk, path: str, kind: str) -> None:
    """Remove what is left of making an engine of `kind`. Raises WrongFormat if it holds logs."""
    folder = posixpath.join(path, kind)
    if not disk.exists(folder) or not disk.list(folder):
        return
    try:
        is_unused = remove_unused(
            disk, folder, partial(_open_kind, disk, folder, kind, create=True)
        )
    except ConfigurationError:
        # It is not installed here, so nothing can tell.
        is_unused = False
    if not is_unused:
        raise WrongFormat(f"{path} holds a log of engine {kind!r}")


def open_replicated_log_engine(
    disk: Disk,
    paths: Sequence[str],
    kind: str,
    *,
    run_all: RunAll,
    new_set_id: str | None = None,
    adopt_empty: bool = False,
) -> ReplicatedLogEngine:
    """One log kept in several directories, acknowledged by a majority of them.

    See `replicated.ReplicatedLogEngine` for the arguments and errors.
    """
    return ReplicatedLogEngine(
        disk,
        paths,
        lambda path: open_log_engine(disk, path, kind),
        run_all,
        new_set_id=new_set_id,
        adopt_empty=adopt_empty,
    )


def _open_kind(disk: Disk, path: str, kind: str, *, create: bool) -> CopyEngine:
    # A node uses one of them; the other's module is not loaded.
    if kind == "leveldb":
        from .leveldb import LevelDbLogEngine

        return LevelDbLogEngine(disk, path, create=create)
    from .segments import SegmentsLogEngine

    return SegmentsLogEngine(disk, path, create=create)
