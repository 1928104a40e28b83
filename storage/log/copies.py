"""Who is a copy of a replicated log: the directories' identities, new sets, replaced members.

Every directory says which copy of which set it is, and whom the set consisted of at which
generation. The highest generation found names the members. A majority of *identified* members must
be there: an empty directory is not a copy, since otherwise two lost directories and one that slept
would make a majority. `adopt_empty` is the operator's word that the absent members are gone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence

from ...errors import Corrupt, StorageError
from ...host.disk import Disk
from .identity import COPY_FILE, CopyIdentity, read_copy_identity, write_identity
from .interface import CopyEngine

# Opens, or makes, the engine in one directory.
OpenCopy = Callable[[str], CopyEngine]


class Copy:
    """One directory of the set."""

    __slots__ = ("behind", "damaged", "engine", "identity", "path")

    def __init__(self, path: str, identity: CopyIdentity) -> None:
        self.path = path
        self.identity = identity
        # None while it cannot be used; then it is behind in everything.
        self.engine: CopyEngine | None = None
        # Names of logs for which it does not count, and those of them to be copied anew.
        self.behind: set[str] = set()
        self.damaged: set[str] = set()


def find_copies(
    disk: Disk,
    paths: Sequence[str],
    open_copy: OpenCopy,
    *,
    new_set_id: str | None = None,
    adopt_empty: bool = False,
) -> list[Copy]:
    """The members of the set that are there, in the order of `paths`, at least a majority of them.

    `new_set_id`: make a new set of this name if every directory is empty, or if some are and the
    others are copies that never held a log. `adopt_empty`: make empty directories copies of the set
    found in the others, in place of members that are not there. Raises StorageError if there is no
    set, not enough of it, or more than one.
    """
    found, empty = _read_identities(disk, paths)
    if new_set_id is not None and len(found) + len(empty) == len(paths):
        # Some named and no log in any: a crash while the set was made. It is made again.
        if not found or (empty and _hold_no_log(found, open_copy)):
            found, empty = _make_set(disk, paths, open_copy, new_set_id), []
    if not found:
        raise StorageError("none of the directories is a copy of a log")
    newest = max(found.values(), key=lambda identity: identity.generation)
    for path, identity in found.items():
        if identity.set_id != newest.set_id:
            raise StorageError(f"{path} is a copy of another log: {identity.set_id}")
    if len(newest.membership) != len(paths):
        raise StorageError(f"the log has {len(newest.membership)} copies; {len(paths)} were given")
    members = {
        path: identity for path, identity in found.items() if identity.copy_id in newest.membership
    }
    if len({identity.copy_id for identity in members.values()}) != len(members):
        raise StorageError("two directories claim to be the same copy")
    majority = len(paths) // 2 + 1
    if len(members) < majority:
        raise StorageError(
            f"{len(members)} of {len(paths)} copies are there; {majority} are"
            " needed. An empty directory is not a copy."
        )
    if adopt_empty and empty:
        members = _adopt(disk, open_copy, members, newest, empty)
    return [Copy(path, members[path]) for path in paths if path in members]


def _read_identities(disk: Disk, paths: Sequence[str]) -> tuple[dict[str, CopyIdentity], list[str]]:
    """Who the directories say they are, and the empty ones."""
    found: dict[str, CopyIdentity] = {}
    empty: list[str] = []
    for path in paths:
        try:
            identity = read_copy_identity(disk, posixpath.join(path, COPY_FILE))
        except (Corrupt, OSError):
            # It says that it is something, not what: neither a copy nor empty.
            continue
        if identity is None:
            empty.append(path)
        else:
            found[path] = identity
    return found, empty


def _make_set(
    disk: Disk, paths: Sequence[str], open_copy: OpenCopy, set_id: str
) -> dict[str, CopyIdentity]:
    """Make every directory a copy of a new set."""
    for path in paths:
        _make_empty(path, open_copy)
    membership = tuple(range(len(paths)))
    made = {
        path: CopyIdentity(set_id, copy_id, membership, 1) for copy_id, path in enumerate(paths)
    }
    for path, identity in made.items():
        write_identity(disk, posixpath.join(path, COPY_FILE), identity)
    return made


def _hold_no_log(paths: Iterable[str], open_copy: OpenCopy) -> bool:
    """Whether no copy holds a log, not even the control log: then the set never was in use."""
    for path in paths:
        try:
            engine = open_copy(path)
        except StorageError:
            return False
        names = engine.list()
        engine.close()
        if names:
            return False
    return True


def _adopt(
    disk: Disk,
    open_copy: OpenCopy,
    members: dict[str, CopyIdentity],
    newest: CopyIdentity,
    empty: Sequence[str],
) -> dict[str, CopyIdentity]:
    """Put empty directories in place of absent members: a new membership, a generation on.

    The old members learn it first. Until a majority of them has, the old membership is what
    a restart sees; from then on, the copies that were replaced are refused.
    """
    next_id = max(newest.membership) + 1
    added = {path: next_id + index for index, path in enumerate(empty)}
    present = {identity.copy_id for identity in members.values()}
    absent = [copy_id for copy_id in newest.membership if copy_id not in present]
    membership = (*sorted(present), *absent[len(empty) :], *added.values())
    assert len(membership) == len(newest.membership)
    ids = {path: identity.copy_id for path, identity in members.items()} | added
    adopted: dict[str, CopyIdentity] = {}
    for path, copy_id in ids.items():
        if path in added:
            _make_empty(path, open_copy)
        identity = CopyIdentity(newest.set_id, copy_id, membership, newest.generation + 1)
        write_identity(disk, posixpath.join(path, COPY_FILE), identity)
        adopted[path] = identity
    return adopted


def _make_empty(path: str, open_copy: OpenCopy) -> None:
    """Make an engine in a directory; refuse one that holds logs without saying whose."""
    engine = open_copy(path)
    names = engine.list()
    engine.close()
    if names:
        raise StorageError(f"{path} holds logs, but does not say of which set")
