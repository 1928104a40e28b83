"""The log: a dense, conditional, durable run of entries per partition, behind one interface.

`open_log_engine` opens the log of one directory, `open_replicated_log_engine` one that is kept in
several directories. The directory's owner (the node) holds its lock; nothing is locked here but
what LevelDB locks itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

from ...errors import ConfigurationError, WrongFormat
from ...host.disk import Disk
from .copy_set import RunAll
from .entry import EntryHeader, chain_hash, decode_entry, encode_entry
from .identity import ENGINE_FILE, EngineIdentity, read_engine_identity, write_identity
from .interface import Append, CopyEngine, Entry, LogEngine
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

    Raises ConfigurationError for a kind that is unknown or not installed, WrongFormat if the
    directory belongs to another engine or a newer millstream, Corrupt if it is damaged.
    """
    if kind not in ENGINE_KINDS:
        raise ConfigurationError(f"no log engine {kind!r}; there are {', '.join(ENGINE_KINDS)}")
    disk.make_directory(path)
    name_path = posixpath.join(path, ENGINE_FILE)
    identity = read_engine_identity(disk, name_path)
    if identity is not None and identity.engine != kind:
        raise WrongFormat(f"{path} holds a log of engine {identity.engine!r}, not {kind!r}")
    if identity is None:
        for other in ENGINE_KINDS:
            if other != kind and disk.exists(posixpath.join(path, other)):
                raise WrongFormat(f"{path} holds a log of engine {other!r}, not {kind!r}")
    engine = _open_kind(disk, posixpath.join(path, kind), kind, create=identity is None)
    if identity is None:
        # Last, so that a directory with a name has an engine: its absence is a loss from now on.
        try:
            write_identity(disk, name_path, EngineIdentity(kind))
        except OSError:
            engine.close()
            raise
    return engine


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
