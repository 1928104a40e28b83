"""How arrivals are packed into a batch or a chunk: MessagePack, compressed where that pays.

A packed list begins with five bytes: the codec, and the size of the MessagePack (u32). What is
unpacked comes from a peer that has proved who it is, and is still not trusted: no more is ever
allocated than ``LINK_ARRIVALS_BYTES_MAX``, whatever the bytes say.

zstandard at level 1: of what was measured (``bench/links.py``) it makes the least of a batch within
3 us of CPU a 1 KB item, and costs no more where there is nothing to compress.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from ..errors import LinkError
from ..limits import LINK_ARRIVALS_BYTES_MAX, LINK_COMPRESSION_BYTES_MIN
from ..storage.arrivals import Arrival

_RAW: Final = 0
_ZSTANDARD: Final = 1
_HEADER_BYTES: Final = 5

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Arrival]] = msgspec.msgpack.Decoder(list[Arrival])
# The frame's MAC is the checksum.
_compressor = zstandard.ZstdCompressor(level=1, write_checksum=False, write_content_size=True)
_decompressor = zstandard.ZstdDecompressor()


def pack_arrivals(arrivals: Sequence[Arrival]) -> bytes:
    """The arrivals, in their order. Raises LinkError for more than a message may hold."""
    raw = _encoder.encode(arrivals)
    if len(raw) > LINK_ARRIVALS_BYTES_MAX:
        raise LinkError(f"{len(raw)} bytes of arrivals are more than a message may hold")
    size = len(raw).to_bytes(_HEADER_BYTES - 1)
    if len(raw) >= LINK_COMPRESSION_BYTES_MIN:
        packed = _compressor.compress(raw)
        if len(packed) < len(raw):
            return b"".join((bytes((_ZSTANDARD,)), size, packed))
    return b"".join((bytes((_RAW,)), size, raw))


def unpack_arrivals(data: bytes) -> list[Arrival]:
    """What ``pack_arrivals`` was given. Raises LinkError for anything else."""
    if len(data) < _HEADER_BYTES:
        raise LinkError("packed arrivals are cut")
    codec = data[0]
    size_bytes = int.from_bytes(data[1:_HEADER_BYTES])
    if size_bytes > LINK_ARRIVALS_BYTES_MAX:
        raise LinkError(f"{size_bytes} bytes of arrivals are more than a message may hold")
    packed = memoryview(data)[_HEADER_BYTES:]
    if codec == _RAW:
        raw: bytes | memoryview = packed
    elif codec == _ZSTANDARD:
        raw = _inflate(packed, size_bytes)
    else:
        raise LinkError(f"packed arrivals have the unknown codec {codec}")
    if len(raw) != size_bytes:
        raise LinkError("packed arrivals are not of the size that they tell")
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise LinkError(f"packed arrivals cannot be read: {error}") from None


def _inflate(packed: memoryview, size_bytes: int) -> bytes:
    # The library allocates what the frame's own header tells, and heeds a limit only where that
    # tells nothing. So the two must agree before it is called; the frame cannot write beyond it.
    try:
        if zstandard.frame_content_size(packed) != size_bytes:
            raise LinkError("packed arrivals are not of the size that they tell")
        return _decompressor.decompress(
            packed, max_output_size=size_bytes, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise LinkError(f"packed arrivals cannot be inflated: {error}") from None
