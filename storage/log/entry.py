"""The log entry: the bytes that every log engine stores, and how they are checked.

An entry is self-contained: whoever holds its bytes can tell that they are whole (CRC32C), which
position they belong to (LSN), who wrote them (epoch and writer nonce) and which entry came before
(hash). Engines store these bytes unchanged and check them on every read. Little-endian::

    offset  size  field
         0     1  format, now 1
         1     1  flags, no bit defined yet
         2     4  epoch: the leadership term of the writer
         6     8  writer nonce: drawn once per start of a writer
        14     8  lsn: position in the log, dense
        22     8  timestamp: hybrid logical clock, strictly increasing along a log
        30    16  hash of the previous entry, zeros if it is the first of its log
        46     4  payload length in bytes
        50     n  payload, opaque here (MessagePack records)
      50+n     4  CRC32C over everything before it

Every later format keeps the format byte first and the CRC last, so that damage and "written by a
newer millstream" can be told apart: the CRC is checked first.

Invariant: along a log, LSNs are dense, timestamps strictly increase, epochs never decrease, and
every entry carries the hash of the one before.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Final, cast

import google_crc32c
import msgspec

from ...errors import Corrupt, StorageError, WrongFormat
from ...limits import LOG_ENTRY_BYTES_MAX

FORMAT: Final = 1
ZERO_HASH: Final = bytes(16)
LSN_MAX: Final = 2**64 - 1

_HEADER: Final = struct.Struct("<BBIQQQ16sI")
_unpack_header = _HEADER.unpack_from
_CRC: Final = struct.Struct("<I")
# The CRC32C of anything that is followed by its own CRC32C, little-endian.
_RESIDUE: Final = 0x48674BC7
HEADER_BYTES: Final = _HEADER.size
CRC_BYTES: Final = _CRC.size
OVERHEAD_BYTES: Final = HEADER_BYTES + CRC_BYTES

_blake2b = hashlib.blake2b
# google-crc32c ships no types; this is its C implementation's signature.
crc32c = cast("Callable[[bytes], int]", google_crc32c.value)


class EntryHeader(msgspec.Struct, frozen=True):
    """What an entry says about itself; format byte and payload length belong to the codec."""

    epoch: int
    writer_nonce: int
    lsn: int
    timestamp: int
    previous_hash: bytes
    flags: int = 0


class Link(msgspec.Struct, frozen=True):
    """What the next entry of a log is checked against; made by `check_entry`."""

    lsn: int
    epoch: int
    timestamp: int
    hash: bytes


def encode_entry(header: EntryHeader, payload: bytes) -> bytes:
    """The bytes of an entry. The header's fields are asserted to be in range: they are ours."""
    assert header.flags == 0, "no flag is defined in format 1"
    assert len(header.previous_hash) == 16
    assert OVERHEAD_BYTES + len(payload) <= LOG_ENTRY_BYTES_MAX, "the batch must be cut before"
    body = (
        _HEADER.pack(
            FORMAT,
            0,
            header.epoch,
            header.writer_nonce,
            header.lsn,
            header.timestamp,
            header.previous_hash,
            len(payload),
        )
        + payload
    )
    return body + _CRC.pack(crc32c(body))


def decode_entry(data: bytes) -> tuple[EntryHeader, bytes]:
    """Header and payload. Raises Corrupt if the bytes are damaged, WrongFormat if newer."""
    _check_whole(data)
    _, flags, epoch, nonce, lsn, timestamp, previous_hash, _ = _HEADER.unpack_from(data)
    header = EntryHeader(epoch, nonce, lsn, timestamp, previous_hash, flags)
    return header, data[HEADER_BYTES:-CRC_BYTES]


def chain_hash(entry: bytes) -> bytes:
    """The 16 bytes by which the next entry names this one: blake2b over header and CRC.

    The payload goes in through its CRC only, so the cost is the same for every size. That is
    enough, because the hash must tell apart entries that honest writers made, not forgeries: a
    writer draws its nonce once and never writes two entries with one timestamp, so nonce and
    timestamp in the header already name one write; and they name the whole past too, through the
    previous hash. Damage to the payload is the CRC's business, with or without the hash.
    """
    return _blake2b(entry[:HEADER_BYTES] + entry[-CRC_BYTES:], digest_size=16).digest()


def lsn_of(entry: bytes) -> int:
    """The LSN of an entry whose bytes are trusted already."""
    return int.from_bytes(entry[14:22], "little")


def timestamp_of(entry: bytes) -> int:
    """The timestamp (hlc) of an entry whose bytes are trusted already."""
    return int.from_bytes(entry[22:30], "little")


def payload_of(entry: bytes) -> bytes:
    """The payload of an entry whose bytes are trusted already."""
    return entry[HEADER_BYTES:-CRC_BYTES]


def check_entry(entry: bytes, previous: Link | None) -> Link:
    """Check that the bytes are whole and continue `previous` (None: the past is not known here).

    Returns the link for the next entry. Raises Corrupt or WrongFormat. This is every engine's
    read path, so it decodes nothing that it does not compare.
    """
    if len(entry) < OVERHEAD_BYTES or crc32c(entry) != _RESIDUE:
        _check_whole(entry)
    format_, flags, epoch, _, lsn, timestamp, previous_hash, length = _unpack_header(entry)
    if format_ != FORMAT or flags or length != len(entry) - OVERHEAD_BYTES:
        _check_whole(entry)
    if previous is not None and (
        previous_hash != previous.hash
        or lsn != previous.lsn + 1
        or timestamp <= previous.timestamp
        or epoch < previous.epoch
    ):
        raise Corrupt(_explain(previous, epoch, lsn, timestamp))
    return Link(lsn, epoch, timestamp, chain_hash(entry))


def check_append(entry: bytes, expected_last: int, previous: Link | None) -> Link:
    """`check_entry` on the way in: an entry that does not fit is its maker's bug, so asserted.

    The pair of the check on reading: what could not be read back is never written.
    """
    try:
        link = check_entry(entry, previous)
    except StorageError as error:
        raise AssertionError(f"an entry that could not be read back: {error}") from error
    assert link.lsn == expected_last + 1, "the entry was made for another position"
    return link


def verify_chain(previous: bytes | None, entry: bytes) -> None:
    """Raise Corrupt unless `entry` is whole and follows `previous` (None: check it alone)."""
    check_entry(entry, None if previous is None else check_entry(previous, None))


def _check_whole(data: bytes) -> None:
    if len(data) < OVERHEAD_BYTES:
        raise Corrupt(f"a log entry of {len(data)} bytes, shorter than its own header")
    if _CRC.unpack_from(data, len(data) - CRC_BYTES)[0] != crc32c(data[:-CRC_BYTES]):
        raise Corrupt(f"a log entry of {len(data)} bytes fails its checksum")
    if data[0] != FORMAT:
        raise WrongFormat(f"a log entry has format {data[0]}; this millstream reads {FORMAT}")
    if data[1] != 0:
        raise WrongFormat(f"a log entry has flags {data[1]:#x}, which this millstream lacks")
    if int.from_bytes(data[46:50], "little") != len(data) - OVERHEAD_BYTES:
        raise Corrupt("a log entry's length is not the length that it states")


def _explain(previous: Link, epoch: int, lsn: int, timestamp: int) -> str:
    if lsn != previous.lsn + 1:
        return f"log entry {lsn} follows {previous.lsn}: entries are missing or out of place"
    if timestamp <= previous.timestamp:
        return f"log entry {lsn} is not later than the entry before it"
    if epoch < previous.epoch:
        return f"log entry {lsn} has epoch {epoch}, the entry before it {previous.epoch}"
    return f"log entry {lsn} does not follow the entry that is stored before it"
