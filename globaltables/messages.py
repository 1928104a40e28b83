"""What regions say to each other, once a link is made: frozen values, MessagePack on the wire.

On each connection the *origin* (who dialled) sends its changes and the *receiver* acknowledges.
A stream is one partition of one table from one origin to one receiver, numbered by the origin for
the length of a connection. ``docs/global-tables.md`` tells the whole.

==============  ======  ==================================================================
message         from    meaning
==============  ======  ==================================================================
Gossip          both    groups as the sender knows them; before any later ``closed``
Open            origin  what will come as stream n
Opened          recv.   from where to send it
NotOpen         recv.   it cannot be received (yet): the origin asks again later
Batch           origin  changes of a stretch of the log
Chunk           origin  rows and tombstones of a stretch of keys, at one moment
Ack             recv.   everything up to there is durable here
Pulse           origin  a sign of life, the origin's clock, closed timestamps of idle streams
PulseBack       recv.   the same back, with the receiver's clock
Wanted          recv.   a pulse at once, for the sake of these streams: somebody waits
==============  ======  ==================================================================

The receiver's *stamps* mean nothing to the origin, which gives the last one back (``echo``): what
was sent with it was sent after the stamp was made. So the receiver knows how old its knowledge is
without having to believe anybody's clock.
"""

from __future__ import annotations

import msgspec

PROTOCOL = 1


class Gossip(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Groups, each encoded by ``model.groups``."""

    groups: list[bytes]


class Open(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Stream ``stream`` will carry partition ``partition`` of a group's table, from ``log_id``.

    ``incarnation`` is the receiver's in the group, as the origin knows it.
    """

    stream: int
    group_id: str
    partition: int
    log_id: str
    incarnation: int


class Opened(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Received up to ``lsn`` (0: nothing). ``cursor`` is the key to go on filling from, if any.

    ``round`` is the group's when the receiver was last filled from there.
    """

    stream: int
    lsn: int
    cursor: bytes | None
    round: int = 0


class NotOpen(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The stream is not received; the origin may open it again under another number."""

    stream: int
    reason: str


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Everything of the origin's in its log beyond what was sent before and up to ``lsn``.

    ``arrivals`` is a packed list of ``Arrival`` (``packing``). ``closed``: with this batch,
    everything of the origin's at or below it has been sent (0: not told). ``is_part``: the stretch
    is too large for one message, and more of it follows. ``echo`` comes with ``closed``.
    """

    stream: int
    lsn: int
    closed: int
    arrivals: bytes
    is_part: bool = False
    echo: int | None = None


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """All rows and tombstones with ``low <= key < high`` (None: the end) at one moment.

    ``covered``: region number -> up to which version the origin had everything of it. ``lsn`` is
    where the log is followed from when the filling is over, ``cursor`` where the next chunk begins
    (None: this is the last).
    """

    stream: int
    lsn: int
    low: bytes
    high: bytes | None
    cursor: bytes | None
    covered: dict[int, int]
    arrivals: bytes
    round: int = 0


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Everything of the stream up to ``lsn`` and ``closed`` is durable; or the chunk to ``cursor``.

    ``applied`` of the arrivals took effect; the others were known or had lost.
    """

    stream: int
    lsn: int
    cursor: bytes | None
    closed: int
    applied: int


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """``now_ms`` is the origin's wall clock; ``closed`` has (stream, closed timestamp) pairs.

    A pair says that everything at or below it was in what was sent on the stream before.
    ``missing`` has (stream, changes) pairs of streams of which so many are not sent yet.
    """

    number: int
    now_ms: int
    closed: list[tuple[int, int]]
    echo: int | None = None
    missing: list[tuple[int, int]] = []


class PulseBack(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """The answer to a pulse, at once; its pairs are acknowledged with their streams."""

    number: int
    now_ms: int
    stamp: int | None = None


class Wanted(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """How far these streams are is wanted now, and ``stamp`` back with it."""

    stamp: int
    streams: list[int]


Message = Gossip | Open | Opened | NotOpen | Batch | Chunk | Ack | Pulse | PulseBack | Wanted

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
encode_message = _encoder.encode
"""Message -> bytes."""


def decode_message(data: bytes) -> Message:
    """Raises msgspec.DecodeError for what is none."""
    message: Message = _decoder.decode(data)
    return message
