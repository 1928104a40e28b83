"""The small files that say what a log directory is: which engine, and which copy of which set.

Both are versioned, checksummed and replaced atomically. A directory without them is empty: it is
made anew if the caller wishes that, and is never counted as a copy.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ...errors import Corrupt, WrongFormat
from ...host.disk import Disk
from .entry import crc32c

FORMAT: Final = 1
ENGINE_FILE: Final = "log-engine"
COPY_FILE: Final = "log-copy"


class EngineIdentity(msgspec.Struct, frozen=True):
    """Which engine wrote the directory."""

    engine: str


class CopyIdentity(msgspec.Struct, frozen=True):
    """Which copy of which replicated set the directory is.

    `membership` holds the copy ids of the set; `generation` counts its changes. A copy whose id is
    not in the membership of the highest generation seen was replaced and counts no more.
    """

    set_id: str
    copy_id: int
    membership: tuple[int, ...]
    generation: int


def write_identity(disk: Disk, path: str, identity: EngineIdentity | CopyIdentity) -> None:
    """Durably. One line: format, CRC32C of the rest in hexadecimal, JSON."""
    body = msgspec.json.encode(identity)
    disk.write_file_atomic(path, b"%d %08x %s\n" % (FORMAT, crc32c(body), body))


def read_engine_identity(disk: Disk, path: str) -> EngineIdentity | None:
    """None if there is no such file. Raises Corrupt, WrongFormat."""
    body = _read_body(disk, path)
    return None if body is None else msgspec.json.decode(body, type=EngineIdentity)


def read_copy_identity(disk: Disk, path: str) -> CopyIdentity | None:
    """None if there is no such file. Raises Corrupt, WrongFormat."""
    body = _read_body(disk, path)
    return None if body is None else msgspec.json.decode(body, type=CopyIdentity)


def _read_body(disk: Disk, path: str) -> bytes | None:
    if not disk.exists(path):
        return None
    data = disk.read_file(path)
    format_, _, rest = data.partition(b" ")
    checksum, _, line = rest.partition(b" ")
    body = line.removesuffix(b"\n")
    # The checksum first, so that a flipped bit in the format is not taken for a newer one.
    if len(line) != len(body) + 1 or checksum != b"%08x" % crc32c(body):
        raise Corrupt(f"{path} fails its checksum")
    if format_ != b"%d" % FORMAT:
        if format_.isdigit() and int(format_) > FORMAT:
            raise WrongFormat(f"{path} has format {format_.decode()}; this reads {FORMAT}")
        raise Corrupt(f"{path} has no readable format")
    return body
