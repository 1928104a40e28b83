"""The door to directories of plain files: what programs read by path, and nobody else writes.

Nothing here is made durable. These are caches and scratch, made again from what is: the code of a
function, unpacked for the process that runs it. All calls block.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable

import msgspec


class FileToWrite(msgspec.Struct, frozen=True):
    """A file or directory below the one that is written. ``path`` has been found safe."""

    path: str
    pieces: Iterable[bytes] = ()
    is_directory: bool = False
    executable: bool = False


def make_temporary_directory() -> str:
    """A new directory, for this process and its children, to be removed by ``remove_tree``."""
    return tempfile.mkdtemp(prefix="millstream-")


def absolute(path: str) -> str:
    """``path`` as programs with another working directory know it."""
    return os.path.abspath(path)


def is_directory(path: str) -> bool:
    """Whether there is a directory of this name."""
    return os.path.isdir(path)


def write_tree(path: str, files: Iterable[FileToWrite]) -> None:
    """Make the directory ``path``, which must not exist, with ``files`` in it, as a whole.

    What an interrupted call leaves has another name (``path.new``) and is replaced by the next.
    """
    aside = path + ".new"
    remove_tree(aside)
    os.makedirs(aside, 0o700)
    try:
        for file in files:
            _write(aside, file)
        os.rename(aside, path)
    except BaseException:
        remove_tree(aside)
        raise


def remove_tree(path: str) -> None:
    """Remove a directory and what is in it; links are removed, not followed. Absent is no error.

    Its name is free at once and for good, also when this raises OSError because somebody has made
    a part of it hard to remove, or is still writing there: what is left has another name then.
    """
    if not os.path.lexists(path):
        return
    gone = tempfile.mkdtemp(prefix="gone-", dir=os.path.dirname(path) or ".")
    os.rename(path, os.path.join(gone, "tree"))
    shutil.rmtree(gone)


def _write(root: str, file: FileToWrite) -> None:
    target = os.path.join(root, file.path)
    if file.is_directory:
        os.makedirs(target, 0o755, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    # A name that is there already is another one's in a file system that ignores case.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(target, flags, 0o755 if file.executable else 0o644)
    with os.fdopen(descriptor, "wb") as written:
        for piece in file.pieces:
            written.write(piece)
