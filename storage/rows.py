"""A row of a tree: the header that storage needs, then the item's DynamoDB-JSON bytes.

Every tree of a partition (the table's, its local indexes', a global index's) holds such rows. The
body is kept exactly as it is answered, so that a whole-item read neither decodes nor encodes it.

Layout, big endian::

    format u8 | flags u8 | region u16 | size u32 | hlc u64 | transaction u64 | body ... | crc32c u32

(the checksum little endian, see ``decode_row``).

``size`` is the item's size as DynamoDB counts it, ``(hlc, region)`` its version, ``transaction``
the timestamp of the last transaction that wrote or checked it (0: none). The checksum covers the
key and everything before it, so a row found under a wrong key is damage too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from itertools import islice
from typing import cast

import google_crc32c
import msgspec

from ..errors import Corrupt, WrongFormat
from ..model.versions import Version

ROW_FORMAT = 1
_HEADER = struct.Struct(">BBHIQQ")
_unpack_header = _HEADER.unpack_from
_SIZE = struct.Struct(">I")
_SIZE_AT = 4
_FORMAT_AND_SIZE = struct.Struct(">B3xI")
_CHECKSUM = struct.Struct("<I")
# google-crc32c ships no types; these are its C implementation's signatures.
_crc32c = cast("Callable[[bytes], int]", google_crc32c.value)
_crc32c_extend = cast("Callable[[int, bytes], int]", google_crc32c.extend)
HEADER_BYTES = _HEADER.size
CHECKSUM_BYTES = _CHECKSUM.size
_BODY = slice(HEADER_BYTES, -CHECKSUM_BYTES)
ROW_OVERHEAD_BYTES = HEADER_BYTES + CHECKSUM_BYTES
#: CRC32C of anything followed by its own CRC32C, little endian: one pass checks a row, uncopied.
_RESIDUE = 0x48674BC7


class Row(msgspec.Struct, frozen=True, gc=False):
    """A decoded row. ``size_bytes`` is DynamoDB's item size, not the length of ``body``."""

    body: bytes
    size_bytes: int
    hlc: int
    region: int = 0
    transaction: int = 0

    @property
    def version(self) -> Version:
        """When and where it was written."""
        return Version(self.hlc, self.region)


def encode_row(key: bytes, row: Row) -> bytes:
    """The bytes that a tree stores for ``row`` under ``key``."""
    data = (
        _HEADER.pack(ROW_FORMAT, 0, row.region, row.size_bytes, row.hlc, row.transaction)
        + row.body
    )
    return data + _CHECKSUM.pack(_crc32c_extend(_crc32c(key), data))


def decode_row(key: bytes, data: bytes) -> Row:
    """The row stored as ``data`` under ``key``.

    Raises:
        Corrupt: the checksum does not hold.
        WrongFormat: a newer millstream wrote it.
    """
    if _crc32c_extend(_crc32c(key), data) != _RESIDUE or len(data) < ROW_OVERHEAD_BYTES:
        raise Corrupt("a row's checksum does not hold")
    version, _, region, size_bytes, hlc, transaction = _unpack_header(data)
    if version != ROW_FORMAT:
        raise WrongFormat(f"a row of format {version}; this millstream reads {ROW_FORMAT}")
    return Row(data[HEADER_BYTES:-CHECKSUM_BYTES], size_bytes, hlc, region, transaction)


class Bodies(msgspec.Struct):
    """Bodies of consecutive rows, the sum of their sizes, and the key of the last one."""

    bodies: list[bytes]
    size_bytes: int
    last: bytes


def take_bodies(
    rows: Iterable[tuple[bytes, bytes]],
    rows_max: int,
    bytes_max: int,
    heal: Callable[[bytes], Row],
) -> Bodies:
    """Bodies of stored rows: up to ``rows_max``, up to the one that brings sizes to ``bytes_max``.

    A page of whole items in one loop; each row is checked as ``decode_row`` does. ``heal`` finds
    another copy of a row that does not pass, by its key, or raises.
    """
    taken: list[bytes] = []
    size_bytes = 0
    key = b""
    # Names of this function are half the price of others, and this is a Query's inner loop.
    checksum, extend, residue = _crc32c, _crc32c_extend, _RESIDUE
    look, body, known = _FORMAT_AND_SIZE.unpack_from, _BODY, ROW_FORMAT
    for key, data in islice(rows, rows_max):
        if extend(checksum(key), data) == residue and (found := look(data))[0] == known:
            taken.append(data[body])
            size_bytes += found[1]
        else:
            row = heal(key)
            taken.append(row.body)
            size_bytes += row.size_bytes
        if size_bytes >= bytes_max:
            break
    return Bodies(taken, size_bytes, key)


def row_size_bytes(data: bytes) -> int:
    """DynamoDB's size of the item in a stored row, unchecked: for sums kept in step."""
    size_bytes: int = _SIZE.unpack_from(data, _SIZE_AT)[0]
    return size_bytes


def row_checksum(data: bytes) -> int:
    """The checksum stored in a row, for sums over many rows."""
    return int.from_bytes(data[-CHECKSUM_BYTES:], "little")
