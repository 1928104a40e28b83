"""The zip of a function's code: is it safe to unpack, and what is in it.

A zip is a stranger's word: names may climb out of the directory, entries may be links or devices,
and headers may say any size. So names are checked before anything is written, what is not a plain
file or a directory is refused, and sizes are counted while the bytes come, never believed.
``walk_package`` is the only reader, used to check a package when it arrives and again to unpack it.

Pure: bytes in, pieces of bytes out. The wording of what Lambda refuses too is Lambda's.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import msgspec

from ..errors import InvalidRequest
from ..limits import (
    PACKAGE_BYTES_MAX,
    PACKAGE_ENTRIES_MAX,
    PACKAGE_NAME_BYTES_MAX,
    PACKAGE_PATH_BYTES_MAX,
    PACKAGE_READ_BYTES,
    PACKAGE_UNPACKED_BYTES_MAX,
)

_UNREADABLE = "Could not unzip uploaded file. Please check your file, then try to upload again."
_UNPACKED_TOO_LARGE = f"Unzipped size must be smaller than {PACKAGE_UNPACKED_BYTES_MAX} bytes"

# APPNOTE.TXT 4.3.12, 4.3.16 and 4.4.4.
_CENTRAL_ENTRY: Final = b"PK\x01\x02"
_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_COMMENT_BYTES_MAX: Final = 65_535
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_DRIVE = re.compile(r"[A-Za-z]:")

# What ``zipfile`` raises at bytes that are no zip, or a broken one.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class Entry(msgspec.Struct, frozen=True):
    """One file or directory. ``path`` is relative, with slashes, and stays below where it is put.

    A directory's entry need not come before what is in it, nor at all.
    """

    path: str
    is_directory: bool = False
    executable: bool = False


def code_digest(package: bytes) -> str:
    """The SHA-256 of a package in base64, Lambda's CodeSha256."""
    return b64encode(sha256(package).digest()).decode()


def check_package(package: bytes) -> int:
    """The unpacked size in bytes, after everything was looked at. Raises InvalidRequest."""
    return sum(len(piece) for _, pieces in walk_package(package) for piece in pieces)


def walk_package(package: bytes) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each entry with its content in pieces, which must be taken before the next entry.

    All names are checked before the first entry is given. Raises InvalidRequest, also midway:
    what was given before is then to be thrown away.
    """
    if not package:
        raise InvalidRequest("Uploaded file must be a non-empty zip")
    if len(package) > PACKAGE_BYTES_MAX:
        raise InvalidRequest(f"Zipped size must be at most {PACKAGE_BYTES_MAX} bytes")
    if _central_entries(package) > PACKAGE_ENTRIES_MAX:
        raise _too_many()
    try:
        archive = zipfile.ZipFile(io.BytesIO(package))
    except _BROKEN:
        raise InvalidRequest(_UNREADABLE) from None
    members = archive.infolist()
    if not members:
        raise InvalidRequest("Uploaded file must be a non-empty zip")
    if len(members) > PACKAGE_ENTRIES_MAX:
        raise _too_many()
    entries = [_entry(member) for member in members]
    _check_tree(entries)
    room = _Room()
    for member, entry in zip(members, entries, strict=True):
        pieces = _pieces(archive, member, room)
        if entry.is_directory and next(pieces, b""):
            raise _unsafe(member.orig_filename, "it is a directory with a content")
        yield entry, pieces


class _Room:
    """How many bytes may still come out of a package."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = PACKAGE_UNPACKED_BYTES_MAX


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: _Room) -> Iterator[bytes]:
    try:
        with archive.open(member) as content:
            while piece := content.read(PACKAGE_READ_BYTES):
                room.left -= len(piece)
                if room.left < 0:
                    raise InvalidRequest(_UNPACKED_TOO_LARGE)
                yield piece
    except _BROKEN:
        raise InvalidRequest(_UNREADABLE) from None


def _central_entries(package: bytes) -> int:
    """About how many entries the directory at the end has, before ``zipfile`` reads them all."""
    end = len(package) - _END_BYTES
    if end < 0 or package[end : end + 4] != _END or package[-2:] != b"\0\0":
        end = package.rfind(_END, max(0, end - _COMMENT_BYTES_MAX))
        if end < 0 or end + _END_BYTES > len(package):
            raise InvalidRequest(_UNREADABLE)
    (size,) = struct.unpack_from("<L", package, end + 12)
    # With 64-bit fields, which no package of 50 MB needs, this is the whole file or nearly.
    return package.count(_CENTRAL_ENTRY, max(0, end - size), end)


def _entry(member: zipfile.ZipInfo) -> Entry:
    """The entry that ``member`` is. Raises InvalidRequest for one that must not be unpacked."""
    # The name as it is in the file: ``filename`` ends at a NUL, for instance.
    raw = member.orig_filename
    if member.flag_bits & _ENCRYPTED:
        raise _unsafe(raw, "it is encrypted")
    if member.compress_type not in _METHODS:
        raise _unsafe(raw, "it is compressed by another method than deflate")
    if not raw or "\0" in raw:
        raise _unsafe(raw, "it has no proper name")
    if "\\" in raw:
        raise _unsafe(raw, "its path has a backslash")
    if raw.startswith("/") or _DRIVE.match(raw):
        raise _unsafe(raw, "its path is absolute")
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _unsafe(raw, "its path leads out of the package")
    path = "/".join(parts)
    names = [_size(part) for part in parts]
    if any(size > PACKAGE_NAME_BYTES_MAX for size in names) or _size(path) > PACKAGE_PATH_BYTES_MAX:
        raise _unsafe(raw, "its path is too long")
    # The upper half is Unix's mode, whatever system the entry says that it was made on.
    mode = member.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise _unsafe(raw, "it is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(raw, "it is neither a file nor a directory")
    is_directory = raw.endswith("/")
    if not is_directory and (kind == stat.S_IFDIR or not parts or raw.endswith("/.")):
        raise _unsafe(raw, "it has no proper name")
    return Entry(path, is_directory, bool(mode & 0o111) and not is_directory)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _check_tree(entries: list[Entry]) -> None:
    """No path twice, and no file where another path needs a directory."""
    files: set[str] = set()
    directories: set[str] = set()
    for entry in entries:
        if entry.is_directory:
            # Several tools write a directory more than once; it is the same directory.
            directories.add(entry.path)
        elif entry.path in files:
            raise _unsafe(entry.path, "it is there twice")
        else:
            files.add(entry.path)
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    both = files & directories
    if both:
        raise _unsafe(min(both), "it is a file and a directory")


def _unsafe(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"The zip's entry {name[:200]!r} cannot be unpacked: {why}.")


def _too_many() -> InvalidRequest:
    return InvalidRequest(f"The zip has more than {PACKAGE_ENTRIES_MAX} entries.")
