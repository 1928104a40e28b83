"""Content codings: inflating what a client sends, compressing what it asked to have compressed.

Inflation is bounded by the decompressed size, so that a bomb costs no more than an honest request
of the largest size. It is done after the signature was verified, never before, since a stranger
should not be able to make us work.
"""

from __future__ import annotations

import zlib

from ..limits import REQUEST_BODY_BYTES_MAX
from .errors import RequestEntityTooLarge, SerializationException, UnsupportedMediaTypeException

_GZIP_WINDOW = 31
_ZLIB_WINDOW = 15
_RAW_WINDOW = -15


def inflate(payload: bytes, coding: bytes, size_bytes_max: int = REQUEST_BODY_BYTES_MAX) -> bytes:
    """``payload`` without its ``coding`` (gzip or deflate, one of them, once).

    Raises UnsupportedMediaTypeException for another coding, RequestEntityTooLarge for more than
    ``size_bytes_max`` bytes, SerializationException for bytes that are not so coded or are cut.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return payload
    if name in (b"gzip", b"x-gzip"):
        return _inflate(payload, _GZIP_WINDOW, size_bytes_max)
    if name == b"deflate":
        # RFC 9110 means the zlib format; some clients send the bare deflate stream. The zlib
        # header is 0x?8 and a multiple of 31, which a bare stream is not but by chance.
        wrapped = payload[:1] != b"" and payload[0] & 0x0F == 8
        wrapped = wrapped and int.from_bytes(payload[:2], "big") % 31 == 0
        return _inflate(payload, _ZLIB_WINDOW if wrapped else _RAW_WINDOW, size_bytes_max)
    raise UnsupportedMediaTypeException("The content encoding must be gzip or deflate.")


def _inflate(payload: bytes, window: int, size_bytes_max: int) -> bytes:
    stream = zlib.decompressobj(wbits=window)
    try:
        plain = stream.decompress(payload, size_bytes_max + 1)
    except zlib.error:
        raise SerializationException("The body is not in its content encoding.") from None
    if len(plain) > size_bytes_max:
        raise RequestEntityTooLarge
    if not stream.eof or stream.unused_data:
        raise SerializationException("The body is cut, or goes on after its end.")
    return plain


def accepts_gzip(header: bytes) -> bool:
    """Whether an Accept-Encoding header asks for gzip (by name, with a weight above zero)."""
    for choice in header.lower().split(b","):
        name, _, parameters = choice.partition(b";")
        if name.strip() in (b"gzip", b"x-gzip"):
            weight = parameters.replace(b" ", b"")
            return not (weight.startswith(b"q=0") and not weight.strip(b"q=0."))
    return False


def compress(body: bytes) -> bytes:
    """``body`` as one gzip member, without a time in its header, at the fastest level."""
    stream = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    return stream.compress(body) + stream.flush()
