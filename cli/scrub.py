"""``millstream scrub``: is everything in a data directory what was written?

The walk runs in a child process (the same command with ``--walk``), because LMDB trusts its pages
and following damaged ones may end a process: a crash is then a finding, not the end of the report.
It changes nothing in the tree and may run beside a serving process, of which it reads the tree's
last committed state; the log is read when nobody serves. Opening a log does what a start does: it
ends the doubt about its last, unacknowledged entry.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import cast

from ..actors.catalog import CATALOG_TREE, Catalog
from ..actors.data_directory import FORMAT, log_paths, tree_paths
from ..actors.flusher import POSITION_PREFIX
from ..actors.partition import PartitionActor
from ..actors.system_tables import SYSTEM_TABLES, SYSTEM_TREES
from ..errors import Corrupt, DirectoryInUse, MillstreamError, StorageError
from ..host.disk import Disk, Lock, RealDisk
from ..model.schema import Table
from ..storage.log import open_log_engine
from ..storage.log.identity import ENGINE_FILE, read_engine_identity
from ..storage.log.replicated import CONTROL
from ..storage.partition import Position, decode_position
from ..storage.rows import Row, decode_row
from ..storage.scrub import (
    Report,
    scrub_log,
    scrub_tree,
    scrub_uncounted_tree,
    subjects_of,
)
from ..storage.table_state import TOKEN_TREE
from ..storage.tree.interface import TreeReader
from ..storage.tree.lmdb_store import open_lmdb

EXIT_HEALTHY = 0
EXIT_FAILED = 1
EXIT_DAMAGED = 3


def scrub_command(arguments: argparse.Namespace) -> int:
    """Scrub as the command line says; the exit code: 0 healthy, 3 damaged, 1 not to be told."""
    directories = tuple(filter(None, (arguments.log_dirs or "").split(",")))
    if arguments.walk:
        return walk(arguments.directory, directories)
    command = [sys.executable, "-m", "millstream", "scrub", arguments.directory, "--walk"]
    if directories:
        command += ["--log-dirs", ",".join(directories)]
    exit_code = subprocess.run(command, check=False).returncode
    if exit_code >= 0:
        return exit_code
    name = signal.Signals(-exit_code).name
    if name in ("SIGINT", "SIGTERM", "SIGKILL"):
        print(f"the walk was ended by {name}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{arguments.directory} is damaged: reading it ended the process that did so ({name})")
    return EXIT_DAMAGED


def walk(directory: str, log_directories: Sequence[str] = ()) -> int:
    """Look at everything in this process; the exit code."""
    scrub = _Scrub(RealDisk(), directory, log_directories)
    try:
        lock = scrub.check_marks()
        try:
            for path in tree_paths(directory, log_directories):
                scrub.check_tree_store(path)
            if lock is not None:
                for path in log_paths(directory, log_directories):
                    scrub.check_log(path, is_copy=bool(log_directories))
        finally:
            if lock is not None:
                lock.release()
    except (MillstreamError, OSError) as error:
        print(f"millstream: {error}", file=sys.stderr)
        return EXIT_FAILED
    return scrub.conclude()


class _Scrub:
    """One walk: what was found so far."""

    def __init__(self, disk: Disk, directory: str, log_directories: Sequence[str]) -> None:
        self._disk = disk
        self._directory = directory
        self._log_directories = log_directories
        #: By log, from the tree; empty if they could not be read.
        self._positions: dict[str, Position] = {}
        self._faults = 0
        self._rows = 0
        self._entries = 0
        self._trees = 0
        self._logs = 0

    def check_marks(self) -> Lock | None:
        """The directory's lock, or None if another process serves it."""
        marker = f"{self._directory}/format"
        if not self._disk.exists(self._directory):
            raise StorageError(f"there is no {self._directory}")
        if not self._disk.exists(marker):
            self._tell("format", "this directory was not finished, or its mark is gone")
        elif self._disk.read_file(marker) != FORMAT:
            self._tell("format", "it is damaged, or was written by another millstream")
        try:
            return self._disk.lock(f"{self._directory}/lock")
        except DirectoryInUse:
            print(f"{self._directory} is being served: its log is left to the process that does")
            return None

    def check_tree_store(self, path: str) -> None:
        """Every tree in the store at ``path``."""
        several = len(tree_paths(self._directory, self._log_directories)) > 1
        label = f"{path}: " if several else ""
        try:
            store = open_lmdb(path, read_only=True)
        except StorageError as error:
            self._tell(f"{label}tree", str(error))
            return
        try:
            self._check_trees(store, store.trees(), store.dropping(), label)
        except StorageError as error:
            self._tell(f"{label}tree", str(error))
        finally:
            store.close()

    def _check_trees(
        self, store: TreeReader, there: list[int], dropping: list[int], label: str
    ) -> None:
        try:
            self._positions = {
                key.removeprefix(POSITION_PREFIX).decode(): decode_position(data)
                for key, data in store.meta_range(POSITION_PREFIX)
            }
            tables = [*SYSTEM_TABLES, *_tables(store)]
        except StorageError as error:
            self._tell(f"{label}catalog", f"{error}; the tables' own counts cannot be compared")
            for tree in there:
                self._report(label, "rows", scrub_uncounted_tree(store, f"tree {tree}", tree))
            return
        for subject in subjects_of(tables, dropping):
            self._report(label, "rows", scrub_tree(store, subject, self._positions))
        if TOKEN_TREE in there:
            tokens = scrub_uncounted_tree(store, "client tokens", TOKEN_TREE)
            self._report(label, "rows", tokens)
        known = {TOKEN_TREE, *(tree for table in tables for tree in table.trees())}
        for tree in there:
            if tree not in known:
                print(f"{label}tree {tree} belongs to no table; the next start removes it")

    def check_log(self, path: str, *, is_copy: bool) -> None:
        """Every log in the engine at ``path``; with several copies, each for itself."""
        label = f"{path}: " if is_copy else ""
        try:
            identity = read_engine_identity(self._disk, f"{path}/{ENGINE_FILE}")
            if identity is None:
                raise Corrupt("it is gone")
            engine = open_log_engine(self._disk, path, identity.engine)
        except (StorageError, OSError) as error:
            self._tell(f"{label}log", str(error))
            return
        try:
            names = engine.list()
            # The copies keep their logs under numbers of their own.
            positions = {} if is_copy else self._positions
            for log_id in names:
                is_control = is_copy and log_id == CONTROL
                position = positions.get(log_id)
                report = scrub_log(engine, log_id, position, holds_records=not is_control)
                self._report(f"{label}log ", "entries", report)
            for log_id in sorted(positions.keys() - set(names)):
                self._tell(f"{label}log {log_id}", "it is gone, though the tree was made from it")
        finally:
            engine.close()

    def conclude(self) -> int:
        """Say how it stands; the exit code."""
        looked = (
            f"{self._trees} trees with {self._rows:,} rows,"
            f" {self._logs} logs with {self._entries:,} entries"
        )
        if self._faults:
            print(f"{self._directory} is damaged: {self._faults} faults in {looked}")
            return EXIT_DAMAGED
        print(f"{self._directory} is healthy: {looked}")
        return EXIT_HEALTHY

    def _report(self, label: str, unit: str, report: Report) -> None:
        verdict = "sound" if not report.faults else "DAMAGED"
        print(f"{label + report.name:<56} {report.count:>12,} {unit:<8} {verdict}", flush=True)
        for fault in report.faults:
            self._tell(label + report.name, fault)
        if unit == "rows":
            self._rows += report.count
            self._trees += 1
        else:
            self._entries += report.count
            self._logs += 1

    def _tell(self, name: str, fault: str) -> None:
        self._faults += 1
        print(f"  {name}: {fault}", flush=True)


class _CatalogRows:
    """As much of a partition as reading the catalog takes, over a store instead of a node."""

    def __init__(self, reader: TreeReader) -> None:
        self.btree = reader

    def get(self, tree: int, key: bytes) -> Row | None:
        data = self.btree.get(tree, key)
        return None if data is None else decode_row(key, data)

    def rows(self, tree: int, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, Row]]:
        for key, data in self.btree.range(tree, low, high):
            yield key, decode_row(key, data)


def _tables(reader: TreeReader) -> list[Table]:
    """What the catalog in the tree says; it is as old as the rows beside it."""
    assert CATALOG_TREE in SYSTEM_TREES
    return Catalog(cast(PartitionActor, _CatalogRows(reader))).load()
