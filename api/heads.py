"""Heads of requests that are like an earlier one, recognised without reading them again.

A connection's requests nearly always have the same head, byte for byte, but for the values of a
few headers: the signature, the date, the length. A ``Template`` is made of a head that llhttp has
read, and tells whether another one of the same size is a repetition and what its headers are, at a
third of llhttp's price. It believes only what llhttp could not read otherwise: everything but those
values is the same, and they are letters, digits and hyphens. What is otherwise in the least is left
to llhttp.
"""

from __future__ import annotations

import re
import struct

#: The only requests worth it: calls.
_REQUEST_LINE = b"POST / HTTP/1.1"
#: Headers whose values change, or end in what changes: behind the last of these bytes.
_CHANGING = {
    b"amz-sdk-invocation-id": None,
    b"authorization": b"=",
    b"content-length": None,
    b"x-amz-date": None,
    b"x-amz-target": b".",
}
# What they say decides how the rest of the request is read.
_FRAMING = frozenset(
    {b"connection", b"expect", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([!-~](?:[ -~]*[!-~])?)")
_LENGTH_DIGITS_MAX = 15


class Template:
    """A head with gaps where values may differ. Made by ``template_of``."""

    __slots__ = ("_beginnings", "_constants", "_headers", "_names", "_unpack")

    def __init__(
        self,
        constants: list[bytes],
        gaps: list[tuple[bytes, bytes, int]],
        headers: dict[bytes, bytes],
    ) -> None:
        """``gaps`` lie between the ``constants``: the header's name, how its value begins, and the
        size of what is left of the value. ``headers`` are those of the head this is made of."""
        sizes = [f"{len(constants[0])}s"]
        for (_, _, size), constant in zip(gaps, constants[1:], strict=True):
            sizes.append(f"{size}s{len(constant)}s")
        # One call cuts a head into all its pieces.
        self._unpack = struct.Struct("".join(sizes)).unpack_from
        self._constants = tuple(constants)
        self._names = [name for name, _, _ in gaps]
        self._beginnings = [beginning for _, beginning, _ in gaps]
        self._headers = headers

    def read(self, data: bytes, start: int) -> dict[bytes, bytes] | None:
        """The headers of the head that begins at ``start`` and is as large; None: not alike."""
        pieces = self._unpack(data, start)
        values = pieces[1::2]
        # For bytes these are the ASCII letters and digits only.
        if pieces[::2] != self._constants or not b"".join(values).replace(b"-", b"").isalnum():
            return None
        headers = self._headers.copy()
        headers.update(zip(self._names, map(bytes.__add__, self._beginnings, values)))
        return headers if headers.get(b"content-length", b"0").isdigit() else None


def template_of(head: bytes, headers: dict[bytes, bytes]) -> Template | None:
    """A template of ``head``, a whole one with its blank line, which llhttp has read as
    ``headers``; None where it is not plain enough."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if lines[0] != _REQUEST_LINE or not _FRAMING.isdisjoint(headers):
        return None
    if len(headers.get(b"content-length", b"")) > _LENGTH_DIGITS_MAX:
        return None
    constant = _REQUEST_LINE
    constants: list[bytes] = []
    gaps: list[tuple[bytes, bytes, int]] = []
    found: dict[bytes, bytes] = {}
    for line in lines[1:]:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name, value = match[1].lower(), match[2]
        found[name] = value
        constant += b"\r\n" + line
        if name in _CHANGING:
            mark = _CHANGING[name]
            rest = value if mark is None else value.rpartition(mark)[2]
            constants.append(constant.removesuffix(rest))
            gaps.append((name, value.removesuffix(rest), len(rest)))
            constant = b""
    constants.append(constant + b"\r\n\r\n")
    if found != headers or len(found) != len(lines) - 1:
        return None
    return Template(constants, gaps, headers)
