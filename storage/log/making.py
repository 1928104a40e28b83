"""What a power cut leaves of an engine that was being made: removed, and made again.

A directory names its engine once the engine is whole (`identity`). One that has an engine's folder
and no name was left while it was made, and nothing was ever promised of it; LevelDB may not even
open what is there, since it names its first manifest before syncing it. The name may have been
lost, too, though: so a folder is emptied only if it holds no log, or cannot be opened and holds no
more bytes than an engine without logs has.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Final

from ...errors import Corrupt
from ...host.disk import Disk
from .interface import CopyEngine

# The largest file of an engine that was just made is LevelDB's report of its opening, some hundred
# bytes; a segment has one frame, and zeros behind it.
_FILE_BYTES_MAX: Final = 4096
_READ_BYTES: Final = 256 * 1024
_ZEROS: Final = bytes(_READ_BYTES)


def make_engine(disk: Disk, folder: str, make: Callable[[], CopyEngine]) -> CopyEngine:
    """The engine that `make` makes, or opens, in `folder`, for which no name stands.

    Raises Corrupt if what is there cannot be opened and may hold logs.
    """
    try:
        return make()
    except Corrupt:
        if not _holds_little(disk, folder):
            raise
    _empty(disk, folder)
    return make()


def remove_unused(disk: Disk, folder: str, make: Callable[[], CopyEngine]) -> bool:
    """Empty the folder of another engine if it holds no log; whether it does not."""
    if not _holds_little(disk, folder):
        return False
    engine = make_engine(disk, folder, make)
    is_unused = not engine.list()
    engine.close()
    if is_unused:
        _empty(disk, folder)
    return is_unused


def _holds_little(disk: Disk, folder: str) -> bool:
    """Whether each file is empty behind its first bytes."""
    if not disk.exists(folder):
        return True
    for name in disk.list(folder):
        file = disk.open(posixpath.join(folder, name))
        try:
            at = _FILE_BYTES_MAX
            while data := file.pread(at, _READ_BYTES):
                if data != _ZEROS[: len(data)]:
                    return False
                at += len(data)
        finally:
            file.close()
    return True


def _empty(disk: Disk, folder: str) -> None:
    """Remove the files in a folder, durably. The folder stays, and is as good as none."""
    for name in disk.list(folder):
        disk.remove(posixpath.join(folder, name))
    disk.fsync_dir(folder)
