"""A disk between two syncs: what is on it for sure, and what may be. See docs/powercut.md.

A file is sectors of 512 bytes. Each has one durable content, and a list of contents that were
written since and that no sync has covered: after a power cut it has any one of them. The size of a
file is kept the same way. A directory has durable names and a list of changes to them.

Two rules for names:

``strict``   POSIX at its strictest: a change of a name is durable after fsync of its directory;
             without it, each change may be there or not, whatever the order.
``journal``  Linux's journalling file systems (ext4, XFS): changes of names become durable in their
             order; a sync of a file or directory that was itself made, grown or changed makes them
             durable up to that change of it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

SECTOR_BYTES = 512
_ZEROS = bytes(SECTOR_BYTES)

STRICT, JOURNAL = "strict", "journal"
NONE, ALL, FILES, PAGES, SECTORS = "none", "all", "files", "pages", "sectors"
#: What becomes of what is not synced: nothing kept, all kept, or a coin for each file, each run of
#: 4096 bytes, each sector.
COINS = (NONE, ALL, FILES, PAGES, SECTORS)

_SECTORS_A_PAGE = 8


class FileNode:
    """A file's contents, durable and doubtful."""

    __slots__ = ("_doubtful", "_durable", "_durable_size", "_sizes", "changed", "label")

    def __init__(self, label: str, serial: int) -> None:
        #: The name that it was made under, for messages.
        self.label = label
        #: When it was made or last changed its size.
        self.changed = serial
        self._durable: dict[int, bytes] = {}
        self._durable_size = 0
        #: Sector -> (serial, content), in the order written.
        self._doubtful: dict[int, list[tuple[int, bytes]]] = {}
        self._sizes: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        """As the process sees it."""
        return self._sizes[-1][1] if self._sizes else self._durable_size

    def sector(self, number: int) -> bytes:
        """As the process sees it."""
        doubtful = self._doubtful.get(number)
        return doubtful[-1][1] if doubtful else self._durable.get(number, _ZEROS)

    def write(self, serial: int, offset: int, data: bytes) -> None:
        end = offset + len(data)
        at = offset
        while at < end:
            number, start = divmod(at, SECTOR_BYTES)
            stop = min(SECTOR_BYTES, start + end - at)
            piece = data[at - offset : at - offset + stop - start]
            if len(piece) < SECTOR_BYTES:
                old = self.sector(number)
                piece = old[:start] + piece + old[stop:]
            self._doubtful.setdefault(number, []).append((serial, piece))
            at += stop - start
        if end > self.size:
            self._sizes.append((serial, end))
            self.changed = serial

    def resize(self, serial: int, size: int) -> None:
        """Truncate or extend with zeros."""
        old = self.size
        if size < old:
            known = [*self._durable, *self._doubtful]
            whole = -(-size // SECTOR_BYTES)
            for number in {number for number in known if number >= whole}:
                self._doubtful.setdefault(number, []).append((serial, _ZEROS))
            if size % SECTOR_BYTES:
                kept = self.sector(size // SECTOR_BYTES)[: size % SECTOR_BYTES]
                rest = kept + bytes(SECTOR_BYTES - len(kept))
                self._doubtful.setdefault(size // SECTOR_BYTES, []).append((serial, rest))
        if size != old:
            self._sizes.append((serial, size))
            self.changed = serial

    def sync(self, until: int, sectors: range | None = None) -> None:
        """Everything with a serial up to ``until`` is durable (of ``sectors`` only, if given)."""
        for number in list(self._doubtful) if sectors is None else sectors:
            versions = self._doubtful.get(number, [])
            covered = [content for serial, content in versions if serial <= until]
            if covered:
                self._durable[number] = covered[-1]
                left = [version for version in versions if version[0] > until]
                if left:
                    self._doubtful[number] = left
                else:
                    del self._doubtful[number]
        for serial, size in list(self._sizes):
            if serial <= until:
                self._durable_size = size
                self._sizes.remove((serial, size))

    def doubts(self) -> int:
        """How many sectors are in doubt."""
        return len(self._doubtful)

    def image(self, coin: str, draw: random.Random) -> tuple[int, dict[int, bytes]]:
        """Size and sectors (absent: zeros) after a power cut."""
        if coin == FILES:
            coin = draw.choice((NONE, ALL))
        size = self._durable_size
        if self._sizes and coin != NONE:
            sizes = [size, *(each for _, each in self._sizes)]
            size = sizes[-1] if coin == ALL else draw.choice(sizes)
        sectors = dict(self._durable)
        if coin == ALL:
            sectors.update((at, versions[-1][1]) for at, versions in self._doubtful.items())
        elif coin in (PAGES, SECTORS):
            kept: dict[int, bool] = {}
            for at, versions in sorted(self._doubtful.items()):
                group = at // _SECTORS_A_PAGE if coin == PAGES else at
                if group not in kept:
                    kept[group] = draw.random() < 0.5
                if kept[group]:
                    content = versions[-1] if coin == PAGES else draw.choice(versions)
                    sectors[at] = content[1]
        return size, sectors


class DirectoryNode:
    """A directory's names, as the process sees them and as they are for sure."""

    __slots__ = ("changed", "durable", "label", "names")

    def __init__(self, label: str, serial: int) -> None:
        self.label = label
        #: When it was made or a name in it last changed.
        self.changed = serial
        self.names: dict[str, FileNode | DirectoryNode] = {}
        self.durable: dict[str, FileNode | DirectoryNode] = {}


Node: TypeAlias = FileNode | DirectoryNode
Names: TypeAlias = dict[str, Node]
ChangeNames: TypeAlias = Callable[[Names], None]


class DiskModel:
    """Everything under one directory, which is there from the beginning and empty."""

    def __init__(self, rule: str) -> None:
        assert rule in (STRICT, JOURNAL)
        self._rule = rule
        self.root = DirectoryNode("", 0)
        self._serial = 0
        #: Writes that have begun and not ended, by serial: a sync of the same file that begins now
        #: need not cover them, nor what came after.
        self._open: dict[int, FileNode] = {}
        #: Changes of names that are not durable, in order: serial, directory, change.
        self._changes: list[tuple[int, DirectoryNode, ChangeNames]] = []

    # Time.

    def tick(self) -> int:
        """The serial of a new change."""
        self._serial += 1
        return self._serial

    def begin(self, node: FileNode) -> int:
        """The serial of a write to ``node`` that has begun."""
        serial = self.tick()
        self._open[serial] = node
        return serial

    def end(self, serial: int) -> None:
        """The write has ended; a sync that begins from now on covers it."""
        self._open.pop(serial, None)

    def covered(self, node: Node) -> int:
        """Up to where a sync of ``node`` that begins now will have made it durable at its end."""
        begun = [serial for serial, other in self._open.items() if other is node]
        return min(begun) - 1 if begun else self._serial

    # Names.

    def find(self, path: str) -> Node | None:
        """The file or directory at ``path``, relative to the root."""
        node: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, DirectoryNode) or name not in node.names:
                return None
            node = node.names[name]
        return node

    def parent(self, path: str) -> tuple[DirectoryNode, str]:
        """The directory of ``path``, which must exist, and the last name."""
        head, _, name = path.rpartition("/")
        node = self.find(head)
        assert isinstance(node, DirectoryNode), f"no directory {head!r}"
        return node, name

    def _change(self, directory: DirectoryNode, change: ChangeNames) -> None:
        change(directory.names)
        directory.changed = self.tick()
        self._changes.append((directory.changed, directory, change))

    def create(self, path: str) -> FileNode:
        directory, name = self.parent(path)
        node = FileNode(path, self._serial + 1)
        self._change(directory, lambda names: names.__setitem__(name, node))
        return node

    def make_directory(self, path: str) -> None:
        directory, name = self.parent(path)
        node = DirectoryNode(path, self._serial + 1)
        self._change(directory, lambda names: names.__setitem__(name, node))

    def remove(self, path: str) -> None:
        directory, name = self.parent(path)

        def change(names: Names) -> None:
            names.pop(name, None)

        self._change(directory, change)

    def rename(self, source: str, target: str) -> None:
        """Within one directory: at once, as file systems promise."""
        directory, old = self.parent(source)
        other, new = self.parent(target)
        assert directory is other, "a rename between directories is not modelled"
        node = directory.names[old]

        def change(names: Names) -> None:
            if names.get(old) is node:
                del names[old]
            names[new] = node

        self._change(directory, change)

    def sync_names(self, node: Node, until: int) -> None:
        """A sync of ``node`` that covers everything up to ``until`` has ended."""
        if self._rule == JOURNAL:
            until = min(until, node.changed)
        left = []
        for serial, where, change in self._changes:
            if serial <= until and (self._rule == JOURNAL or where is node):
                change(where.durable)
            else:
                left.append((serial, where, change))
        self._changes = left

    # Images.

    def doubts(self) -> tuple[int, int]:
        """How many sectors and how many names are in doubt."""
        return sum(each.doubts() for each in _files(self.root)), len(self._changes)

    def write_image(self, target: Path, coin: str, draw: random.Random) -> None:
        """Make the directory ``target`` what the root is after a power cut."""
        names = self._names_after(coin, draw)
        _write_directory(self.root, names, target, coin, draw)

    def _names_after(self, coin: str, draw: random.Random) -> dict[int, Names]:
        """The names of each directory, by its id, that has any in doubt."""
        count = len(self._changes)
        if coin == NONE:
            kept = [False] * count
        elif coin == ALL:
            kept = [True] * count
        elif self._rule == JOURNAL:
            length = draw.randrange(count + 1)
            kept = [number < length for number in range(count)]
        else:
            kept = [draw.random() < 0.5 for _ in range(count)]
        after: dict[int, Names] = {}
        for (_, directory, change), keep in zip(self._changes, kept, strict=True):
            names = after.setdefault(id(directory), dict(directory.durable))
            if keep:
                change(names)
        return after

    def adopt(self, directory: Path) -> None:
        """After a kill: what calls that never returned have done is seen in ``directory``."""
        self._open.clear()
        self._adopt(self.root, directory, "")

    def _adopt(self, node: DirectoryNode, path: Path, label: str) -> None:
        there = set(os.listdir(path))
        for name in sorted(node.names.keys() - there):
            self.remove(label + name)
        for name in sorted(there):
            child = node.names.get(name)
            if (path / name).is_dir():
                if child is None:
                    self.make_directory(label + name)
                    child = node.names[name]
                assert isinstance(child, DirectoryNode)
                self._adopt(child, path / name, f"{label}{name}/")
                continue
            if child is None:
                child = self.create(label + name)
            assert isinstance(child, FileNode)
            data = (path / name).read_bytes()
            child.resize(self.tick(), len(data))
            for number in range(-(-len(data) // SECTOR_BYTES)):
                real = data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES]
                if child.sector(number)[: len(real)] != real:
                    child.write(self.tick(), number * SECTOR_BYTES, real)

    def differences(self, directory: Path) -> list[str]:
        """Where what the process sees of the model is not what ``directory`` really holds."""
        return sorted(_differences(self.root, directory, ""))


def _files(directory: DirectoryNode) -> list[FileNode]:
    found = []
    for node in directory.names.values():
        found += _files(node) if isinstance(node, DirectoryNode) else [node]
    return found


def _write_directory(
    node: DirectoryNode, after: dict[int, Names], target: Path, coin: str, draw: random.Random
) -> None:
    target.mkdir()
    for name, child in sorted(after.get(id(node), node.durable).items()):
        if isinstance(child, DirectoryNode):
            _write_directory(child, after, target / name, coin, draw)
            continue
        size, sectors = child.image(coin, draw)
        with (target / name).open("wb") as file:
            file.truncate(size)
            for number, content in sectors.items():
                start = number * SECTOR_BYTES
                if start < size and content != _ZEROS:
                    os.pwrite(file.fileno(), content[: size - start], start)


def _differences(node: DirectoryNode, path: Path, label: str) -> list[str]:
    there = set(os.listdir(path))
    found = [f"{label}{name} is not in the model" for name in there - node.names.keys()]
    found += [f"{label}{name} is only in the model" for name in node.names.keys() - there]
    for name in there & node.names.keys():
        child = node.names[name]
        if isinstance(child, DirectoryNode):
            found += _differences(child, path / name, f"{label}{name}/")
            continue
        data = (path / name).read_bytes()
        if len(data) != child.size:
            found.append(f"{label}{name} has {len(data)} bytes, in the model {child.size}")
        for number in range(-(-len(data) // SECTOR_BYTES)):
            real = data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES]
            if child.sector(number)[: len(real)] != real:
                found.append(f"{label}{name} differs in sector {number}")
                break
    return found
