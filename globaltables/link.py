"""A link's connection, as a machine: bytes in, messages out, and the other way round.

Owned by a channel (``actors/channel.py``). Theory of operation::

    origin                                             receiver (who was dialled)
    magic, Hello(protocol, number, nonce, region) ---->
                                                  <---- magic, Hello
    Proof                                         ---->
                                                  <---- Proof
    frames                                        <---> frames

    HELLO --hello is fine--> PROOF --proof is right--> MADE --anything wrong--> ENDED

A *proof* is HMAC-SHA256 under the secret over the prover's role and both hellos; both nonces are
in it, so that it is good for this connection only, and the role, so that it cannot be sent back to
who gave it. The origin proves first: who merely dials gets nothing to guess the secret with.
Afterwards each direction has a key of its own, made of the same. A *frame* is a length (u32), the
message, and 16 bytes of keyed BLAKE2b over the frame's number in its direction and the message: a
frame that was changed, repeated, left out, put elsewhere or sent back ends the connection.

Until MADE whatever is said is said in frames of kind (u8), length (u16) and body, and a *Refused*
with a line of text may come in the place of any. So that any version can refuse any other, this,
the magic, and the place of the protocol's number in Hello never change. The text has been written
by nobody in particular: it is shown, never trusted.

``receive`` takes bytes cut anywhere; ``ready`` returns and clears what is to be sent. What
``receive`` raises is the end; what ``ready`` then still gives is to be sent before closing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from ..errors import LinkError, LinkLost, LinkRefused
from ..limits import (
    LINK_FRAME_BYTES_MAX,
    LINK_HANDSHAKE_BYTES_MAX,
    LINK_REFUSAL_BYTES_MAX,
    REGION_BYTES_MAX,
)
from .messages import PROTOCOL, Message, decode_message, encode_message
from .peers import Identity

MAGIC: Final = b"MLSTRM1\n"
NONCE_BYTES: Final = 32
_HELLO: Final = 1
_PROOF: Final = 2
_REFUSED: Final = 3
_HEAD_BYTES: Final = 3
_PROOF_BYTES: Final = 32
_HELLO_BYTES_MIN: Final = 2 + 2 + NONCE_BYTES
#: Of each kind of frame before MADE, the largest body.
_BODY_BYTES_MAX: Final = {
    # A later protocol's hello may have more in it.
    _HELLO: LINK_HANDSHAKE_BYTES_MAX // 2,
    _PROOF: _PROOF_BYTES,
    _REFUSED: LINK_REFUSAL_BYTES_MAX,
}
_LENGTH_BYTES: Final = 4
_MAC_BYTES: Final = 16
_ORIGIN: Final = b"origin"
_RECEIVER: Final = b"receiver"


class Phase(Enum):
    """Where the machine is."""

    HELLO = "hello"
    PROOF = "proof"
    MADE = "made"
    ENDED = "ended"


class LinkConnection:
    """See the module's docstring. One side of one connection."""

    __slots__ = (
        "_buffer",
        "_expected",
        "_has_magic",
        "_hello",
        "_identity",
        "_is_origin",
        "_outgoing",
        "_receive_key",
        "_received",
        "_secret",
        "_send_key",
        "_sent",
        "_transcript",
        "peer",
        "phase",
    )

    def __init__(
        self,
        *,
        is_origin: bool,
        identity: Identity,
        secret: bytes,
        nonce: bytes,
        expected: Sequence[Identity],
    ) -> None:
        """``expected``: who the other side may be; one for an origin. ``nonce`` is used once."""
        assert len(nonce) == NONCE_BYTES
        assert not is_origin or len(expected) == 1
        self._is_origin = is_origin
        self._identity = identity
        self._secret = secret
        self._expected = expected
        self.phase = Phase.HELLO
        #: Who the other side says it is, once it has said so; proved when the phase is MADE.
        self.peer: Identity | None = None
        #: What was received and not understood yet: less than a frame, between two calls.
        self._buffer = bytearray()
        self._has_magic = False
        region = identity.region.encode()
        assert len(region) <= REGION_BYTES_MAX
        self._hello = b"".join((PROTOCOL.to_bytes(2), identity.number.to_bytes(2), nonce, region))
        #: Both hellos, the origin's first. Empty before there are two.
        self._transcript = b""
        self._send_key = b""
        self._receive_key = b""
        #: Frames so far, in each direction.
        self._sent = 0
        self._received = 0
        self._outgoing = MAGIC + _frame(_HELLO, self._hello) if is_origin else b""

    @property
    def made(self) -> bool:
        """Whether both sides have proved that they know the secret."""
        return self.phase is Phase.MADE

    def ready(self) -> bytes:
        """What of the handshake is to be sent."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def send(self, message: Message) -> bytes:
        """The message's frame, to be sent behind those made before. Raises LinkError if too large.

        A message that is too large takes nothing with it: the link stays as it is.
        """
        assert self.phase is Phase.MADE, self.phase
        payload = encode_message(message)
        if len(payload) > LINK_FRAME_BYTES_MAX:
            raise LinkError(f"a message of {len(payload)} bytes is more than a frame holds")
        mac = _mac(self._send_key, self._sent, payload)
        self._sent += 1
        return b"".join((len(payload).to_bytes(_LENGTH_BYTES), payload, mac))

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The messages that are complete with these bytes.

        Raises:
            LinkRefused: one side will not have the other.
            LinkError: what came is not what the other side sent, or is none of ours.
        """
        assert self.phase is not Phase.ENDED
        self._buffer += data
        try:
            while self.phase is not Phase.MADE:
                if not self._step():
                    return []
            return self._read_frames()
        except LinkError:
            self.phase = Phase.ENDED
            self._buffer.clear()
            raise

    def receive_end(self) -> LinkLost:
        """The other side sends no more. What to tell."""
        self.phase = Phase.ENDED
        if self._buffer:
            return LinkLost("the link has ended amid a frame")
        return LinkLost("the other side has closed the link")

    # The handshake.

    def _step(self) -> bool:
        """Understand one frame of the handshake. False: it is not all there."""
        if not self._has_magic:
            start = bytes(self._buffer[: len(MAGIC)])
            if not MAGIC.startswith(start):
                raise LinkError("who is there speaks another protocol, not that of links")
            if len(start) < len(MAGIC):
                return False
            del self._buffer[: len(MAGIC)]
            self._has_magic = True
        if len(self._buffer) < _HEAD_BYTES:
            return False
        kind, size_bytes = self._buffer[0], int.from_bytes(self._buffer[1:_HEAD_BYTES])
        wanted = _HELLO if self.phase is Phase.HELLO else _PROOF
        if kind not in (wanted, _REFUSED):
            raise LinkError(f"a frame of kind {kind} in a handshake that waits for {wanted}")
        if size_bytes > _BODY_BYTES_MAX[kind]:
            raise LinkError(f"{size_bytes} bytes are more than a handshake may have")
        end = _HEAD_BYTES + size_bytes
        if len(self._buffer) < end:
            return False
        body = bytes(self._buffer[_HEAD_BYTES:end])
        del self._buffer[:end]
        if kind == _REFUSED:
            raise LinkRefused(f"the other side refuses the link: {_shown(body)}")
        if kind == _HELLO:
            self._read_hello(body)
        else:
            self._read_proof(body)
        return True

    def _read_hello(self, body: bytes) -> None:
        if len(body) < 2:
            raise LinkError("a hello without a version")
        protocol = int.from_bytes(body[:2])
        if protocol != PROTOCOL:
            raise self._refuse(
                f"{self._identity.region} speaks version {PROTOCOL} of the link's protocol,"
                f" the other side version {protocol}"
            )
        region = body[_HELLO_BYTES_MIN:]
        if len(body) < _HELLO_BYTES_MIN or len(region) > REGION_BYTES_MAX:
            raise LinkError("a hello of another size")
        peer = Identity(_shown(region), int.from_bytes(body[2:4]))
        if peer.number == self._identity.number or peer.region == self._identity.region:
            raise self._refuse(f"{peer} has the name or number of {self._identity}, this side")
        if peer not in self._expected:
            if self._is_origin:
                raise self._refuse(f"{self._expected[0]} was dialled, {peer} has answered")
            raise self._refuse(f"{peer} is not in the file of regions of {self._identity.region}")
        self.peer = peer
        if self._is_origin:
            self._transcript = _joined(self._hello, body)
            self._outgoing += self._own_proof()
        else:
            self._transcript = _joined(body, self._hello)
            self._outgoing += MAGIC + _frame(_HELLO, self._hello)
        self.phase = Phase.PROOF

    def _read_proof(self, body: bytes) -> None:
        expected = self._proof(_RECEIVER if self._is_origin else _ORIGIN)
        if not hmac.compare_digest(body, expected):
            raise self._refuse(f"{self._identity.region} and the other side have other secrets")
        if not self._is_origin:
            self._outgoing += self._own_proof()
        keys = (self._key(_ORIGIN), self._key(_RECEIVER))
        self._send_key, self._receive_key = keys if self._is_origin else keys[::-1]
        self.phase = Phase.MADE

    def _refuse(self, reason: str) -> LinkRefused:
        """The error to be raised here; the other side will be told the same."""
        # Before its hello, a receiver has not sent the magic.
        has_spoken = self._is_origin or self.phase is not Phase.HELLO
        told = reason.encode()[:LINK_REFUSAL_BYTES_MAX]
        self._outgoing += (b"" if has_spoken else MAGIC) + _frame(_REFUSED, told)
        return LinkRefused(reason)

    def _own_proof(self) -> bytes:
        return _frame(_PROOF, self._proof(_ORIGIN if self._is_origin else _RECEIVER))

    def _proof(self, role: bytes) -> bytes:
        return self._derived(b"millstream link, proof of the " + role)

    def _key(self, role: bytes) -> bytes:
        """Of the frames that the one with this role sends."""
        return self._derived(b"millstream link, frames of the " + role)

    def _derived(self, purpose: bytes) -> bytes:
        text = len(purpose).to_bytes(1) + purpose + self._transcript
        return hmac.digest(self._secret, text, hashlib.sha256)

    # Frames.

    def _read_frames(self) -> list[Message]:
        messages: list[Message] = []
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            size_bytes = int.from_bytes(buffer[at:start])
            if size_bytes > LINK_FRAME_BYTES_MAX:
                raise LinkError(f"a frame of {size_bytes} bytes")
            end = start + size_bytes
            if len(buffer) < end + _MAC_BYTES:
                break
            payload = bytes(memoryview(buffer)[start:end])
            expected = _mac(self._receive_key, self._received, payload)
            if not hmac.compare_digest(buffer[end : end + _MAC_BYTES], expected):
                raise LinkError("a frame was changed, repeated or put elsewhere on its way")
            self._received += 1
            at = end + _MAC_BYTES
            messages.append(_decoded(payload))
        del buffer[:at]
        return messages


def _decoded(payload: bytes) -> Message:
    try:
        return decode_message(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LinkError(f"a frame that says nothing: {error}") from None


def _frame(kind: int, body: bytes) -> bytes:
    assert len(body) <= _BODY_BYTES_MAX[kind]
    return kind.to_bytes(1) + len(body).to_bytes(2) + body


def _joined(origin: bytes, receiver: bytes) -> bytes:
    return _frame(_HELLO, origin) + _frame(_HELLO, receiver)


def _mac(key: bytes, number: int, payload: bytes) -> bytes:
    mac = hashlib.blake2b(number.to_bytes(8), digest_size=_MAC_BYTES, key=key)
    mac.update(payload)
    return mac.digest()


def _shown(text: bytes) -> str:
    """A stranger's words, fit for a line of a log."""
    decoded = text.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in decoded)
