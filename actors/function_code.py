"""The code of functions on disk: zips named by their SHA-256, and what is unpacked of them.

::

    DIR/functions/HEX.zip         durable when ``write`` returns
    DIR/functions/unpacked/HEX/   a cache: made when the function is first invoked, gone at a start

Owned by the store of functions, which says what is needed and sees to it that nobody unpacks what
another one removes. Every method blocks and is called in a worker thread. Codes are told by their
digest in base64, as definitions have it.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Sequence
from hashlib import sha256

from ..errors import Corrupt
from ..host.directories import FileToWrite, is_directory, remove_tree, write_tree
from ..host.disk import Disk
from ..lambdas.functions import Function
from ..lambdas.packages import code_digest, walk_package

logger = logging.getLogger(__name__)


class CodeFiles:
    """The files below one directory."""

    __slots__ = ("_disk", "_root")

    def __init__(self, disk: Disk, root: str) -> None:
        self._disk = disk
        self._root = root

    def path(self, code_sha256: str) -> str:
        """Where a zip is."""
        return f"{self._root}/{_hex(code_sha256)}.zip"

    def tidy(self, codes: Sequence[str]) -> None:
        """Make the directory; remove what another process has unpacked, and all but ``codes``."""
        self._disk.make_directory(self._root)
        wanted = {self.path(code) for code in codes}
        for name in self._disk.list(self._root):
            path = f"{self._root}/{name}"
            if name == "unpacked" or name.startswith("gone-"):
                remove_if_possible(path)
            elif path not in wanted and name.endswith((".zip", ".zip.new")):
                self._disk.remove(path)
        self._disk.fsync_dir(self._root)

    def write(self, package: bytes) -> None:
        """Keep a zip; durable when this returns. One that is there is written again."""
        self._disk.write_file_atomic(self.path(code_digest(package)), package)

    def unpack(self, function: Function) -> str:
        """The directory with the function's code, unpacked unless it is.

        Raises:
            Corrupt: the zip is gone, or is not what was written.
        """
        path = self._unpacked(function.code_sha256)
        if is_directory(path):
            return path
        stored = self.path(function.code_sha256)
        if not self._disk.exists(stored):
            raise Corrupt(f"the code of function {function.name} is gone")
        package = self._disk.read_file(stored)
        if code_digest(package) != function.code_sha256:
            raise Corrupt(f"the code of function {function.name} is not what was stored")
        write_tree(
            path,
            (
                FileToWrite(entry.path, pieces, entry.is_directory, entry.executable)
                for entry, pieces in walk_package(package)
            ),
        )
        return path

    def remove(self, code_sha256: str) -> None:
        """Remove a zip and what was unpacked of it. What cannot be, the next start tries again."""
        remove_if_possible(self._unpacked(code_sha256))
        path = self.path(code_sha256)
        try:
            if self._disk.exists(path):
                self._disk.remove(path)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", path, error.strerror)

    def remove_unpacked(self) -> None:
        """Remove all that is unpacked."""
        remove_if_possible(f"{self._root}/unpacked")

    def _unpacked(self, code_sha256: str) -> str:
        return f"{self._root}/unpacked/{_hex(code_sha256)}"


def remove_if_possible(path: str) -> None:
    """Remove a directory that handlers could write in; what resists does no harm."""
    try:
        remove_tree(path)
    except OSError as error:
        logger.warning("a part of %s cannot be removed: %s", path, error.strerror)


def _hex(code_sha256: str) -> str:
    digest = b64decode(code_sha256)
    assert len(digest) == sha256().digest_size
    return digest.hex()
