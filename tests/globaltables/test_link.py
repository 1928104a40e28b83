"""The link's machine: handshakes, refusals, and that an attacker in the middle can do nothing."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import LinkError, LinkLost, LinkRefused
from millstream.globaltables.link import MAGIC, LinkConnection, Phase, _mac
from millstream.globaltables.messages import (
    Ack,
    Batch,
    Gossip,
    Message,
    Open,
    Opened,
    Pulse,
    PulseBack,
)
from millstream.globaltables.peers import Identity
from millstream.limits import LINK_FRAME_BYTES_MAX, LINK_HANDSHAKE_BYTES_MAX

EAST = Identity("us-east-1", 1)
WEST = Identity("eu-west-1", 2)
SOUTH = Identity("sa-east-1", 3)
SECRET = b"a secret of some length"
TOLD: list[Message] = [
    Gossip([b"group"]),
    Open(1, "id", 0, "log", 1),
    Batch(1, 7, 9, bytes(range(100))),
    Pulse(1, 2, [(1, 2)]),
]
ANSWERED: list[Message] = [Opened(1, 0, None), Ack(1, 7, None, 9, 3), PulseBack(1, 2)]


def origin(
    identity: Identity = EAST,
    secret: bytes = SECRET,
    expected: Identity = WEST,
    nonce: bytes = b"o" * 32,
) -> LinkConnection:
    return LinkConnection(
        is_origin=True, identity=identity, secret=secret, nonce=nonce, expected=[expected]
    )


def receiver(
    identity: Identity = WEST, secret: bytes = SECRET, nonce: bytes = b"r" * 32
) -> LinkConnection:
    return LinkConnection(
        is_origin=False, identity=identity, secret=secret, nonce=nonce, expected=[EAST, SOUTH]
    )


def shake_hands(one: LinkConnection, other: LinkConnection) -> tuple[bytes, bytes]:
    """Carry bytes to and fro until both are silent; what each has said."""
    said = [b"", b""]
    while True:
        data = one.ready(), other.ready()
        if data == (b"", b""):
            return said[0], said[1]
        said = [said[0] + data[0], said[1] + data[1]]
        other.receive(data[0])
        one.receive(data[1])


def made() -> tuple[LinkConnection, LinkConnection]:
    one, other = origin(), receiver()
    shake_hands(one, other)
    return one, other


def refused(one: LinkConnection, other: LinkConnection) -> tuple[str, str]:
    """What each of them raises in a handshake that fails; who does not fail is told the end."""
    raised = ["", ""]
    ends = [one, other]
    for _ in range(8):
        for at in (0, 1):
            data = ends[at].ready()
            if data and not raised[1 - at]:
                try:
                    ends[1 - at].receive(data)
                except LinkRefused as error:
                    raised[1 - at] = str(error)
    assert not one.made
    assert not other.made
    return raised[0], raised[1]


def test_both_know_each_other_after_a_handshake() -> None:
    one, other = origin(), receiver()
    said, answered = shake_hands(one, other)
    assert one.made
    assert other.made
    assert one.peer == WEST
    assert other.peer == EAST
    assert max(len(said), len(answered)) <= LINK_HANDSHAKE_BYTES_MAX
    assert SECRET not in said + answered


def test_messages_go_both_ways() -> None:
    one, other = made()
    for message in TOLD:
        assert other.receive(one.send(message)) == [message]
    for message in ANSWERED:
        assert one.receive(other.send(message)) == [message]


def test_who_dials_without_the_secret_gets_no_proof() -> None:
    one, other = origin(secret=b"x" * 16), receiver()
    other.receive(one.ready())
    hello = other.ready()
    one.receive(hello)
    with pytest.raises(LinkRefused):
        other.receive(one.ready())
    assert other.ready() == b"\x03\x00\x2feu-west-1 and the other side have other secrets"


def test_another_secret() -> None:
    said = "eu-west-1 and the other side have other secrets"
    told = f"the other side refuses the link: {said}"
    assert refused(origin(secret=b"x" * 16), receiver()) == (told, said)


def test_another_region_answers() -> None:
    said = "eu-west-1 (number 2) was dialled, sa-east-1 (number 3) has answered"
    told = f"the other side refuses the link: {said}"
    assert refused(origin(), receiver(identity=SOUTH)) == (said, told)


def test_a_region_that_is_not_in_the_file() -> None:
    said = "ap-east-1 (number 9) is not in the file of regions of eu-west-1"
    told = f"the other side refuses the link: {said}"
    assert refused(origin(identity=Identity("ap-east-1", 9)), receiver()) == (told, said)


@pytest.mark.parametrize("claimed", [WEST, Identity("us-east-1", 2), Identity("eu-west-1", 1)])
def test_a_region_that_has_this_one_s_name_or_number(claimed: Identity) -> None:
    told, said = refused(origin(identity=claimed, expected=SOUTH), receiver())
    assert said == f"{claimed} has the name or number of eu-west-1 (number 2), this side"
    assert told == f"the other side refuses the link: {said}"


def test_another_number_than_in_the_file() -> None:
    _, said = refused(origin(identity=Identity("us-east-1", 7)), receiver())
    assert said == "us-east-1 (number 7) is not in the file of regions of eu-west-1"


def test_an_older_protocol_is_told_both_versions() -> None:
    # Its hello is another one behind the version, too.
    other = receiver()
    with pytest.raises(
        LinkRefused, match="eu-west-1 speaks version 1 of .*, the other side version 0"
    ):
        other.receive(MAGIC + b"\x01\x00\x05\x00\x00abc")
    told = other.ready()
    assert told.startswith(MAGIC + b"\x03")
    with pytest.raises(LinkRefused, match="refuses the link: eu-west-1 speaks version 1 of"):
        origin().receive(told)
    assert other.phase is Phase.ENDED


def test_an_older_protocol_that_answers_is_told_both_versions() -> None:
    one = origin()
    one.ready()
    with pytest.raises(
        LinkRefused, match="us-east-1 speaks version 1 of .*, the other side version 9"
    ):
        one.receive(MAGIC + b"\x01\x00\x02\x00\x09")
    assert one.ready()[:1] == b"\x03"


def test_a_proof_that_is_sent_back() -> None:
    one, other = origin(), receiver()
    other.receive(one.ready())
    one.receive(other.ready())
    proof = one.ready()
    with pytest.raises(LinkRefused, match="other secrets"):
        one.receive(proof)


def test_everything_sent_back() -> None:
    one = origin()
    with pytest.raises(LinkRefused, match="has the name or number of"):
        one.receive(one.ready())


def test_a_handshake_that_is_played_again() -> None:
    one, other = origin(), receiver()
    said, answered = shake_hands(one, other)
    frame = one.send(TOLD[0])
    with pytest.raises(LinkRefused, match="other secrets"):
        receiver(nonce=b"n" * 32).receive(said + frame)
    with pytest.raises(LinkRefused, match="other secrets"):
        origin(nonce=b"n" * 32).receive(answered)


def test_a_frame_that_is_repeated() -> None:
    one, other = made()
    frame = one.send(TOLD[0])
    assert other.receive(frame) == [TOLD[0]]
    with pytest.raises(LinkError, match="changed, repeated"):
        other.receive(frame)


def test_frames_that_are_swapped_or_left_out() -> None:
    for order in ([1, 0], [1]):
        one, other = made()
        frames = [one.send(message) for message in TOLD]
        with pytest.raises(LinkError, match="changed, repeated"):
            other.receive(b"".join(frames[at] for at in order))


def test_a_frame_that_is_sent_back() -> None:
    one, _ = made()
    with pytest.raises(LinkError, match="changed, repeated"):
        one.receive(one.send(TOLD[0]))


def test_a_frame_of_another_connection() -> None:
    one, _ = made()
    other = receiver(nonce=b"n" * 32)
    shake_hands(origin(), other)
    with pytest.raises(LinkError, match="changed, repeated"):
        other.receive(one.send(TOLD[0]))


def test_a_length_beyond_the_limit_is_refused_before_anything_is_held() -> None:
    _, other = made()
    with pytest.raises(LinkError, match="a frame of 8388609 bytes"):
        other.receive((LINK_FRAME_BYTES_MAX + 1).to_bytes(4))


def test_a_message_too_large_is_not_sent_and_takes_nothing_with_it() -> None:
    one, other = made()
    with pytest.raises(LinkError, match="more than a frame holds"):
        one.send(Batch(1, 1, 1, bytes(LINK_FRAME_BYTES_MAX)))
    assert other.receive(one.send(TOLD[0])) == [TOLD[0]]


def test_the_largest_frame_passes() -> None:
    one, other = made()
    envelope = len(msgspec.msgpack.encode(Batch(1, 1, 1, bytes(70_000)))) - 70_000
    message = Batch(1, 1, 1, bytes(LINK_FRAME_BYTES_MAX - envelope))
    assert other.receive(one.send(message)) == [message]


def rightly_signed(sender: LinkConnection, payload: bytes) -> bytes:
    """A first frame that only a peer with the secret can make."""
    return len(payload).to_bytes(4) + payload + _mac(sender._send_key, 0, payload)


@pytest.mark.parametrize(
    "nothing", [None, "text", [99, 1], [1, 2], [1, ["text"]], [8, "x", 1, []], [1] * 3]
)
def test_a_frame_that_says_nothing(nothing: object) -> None:
    one, other = made()
    with pytest.raises(LinkError, match="says nothing"):
        other.receive(rightly_signed(one, msgspec.msgpack.encode(nothing)))


@given(st.binary(max_size=60))
def test_a_peer_with_the_secret_that_talks_rubbish(payload: bytes) -> None:
    one, other = made()
    try:
        other.receive(rightly_signed(one, payload))
    except LinkError:
        assert other.phase is Phase.ENDED


@pytest.mark.parametrize(
    "payload",
    [
        b"\x96\x03\x01\x00\xc0" + b"\x91" * 5000,  # lists in lists
        b"\x93\x04\x01\xa2\xff\xff",  # a reason that is not UTF-8
        b"\x93\x04\xcf" + b"\xff" * 8 + b"\xa1a",  # a number of 64 bits
    ],
)
def test_rubbish_that_decoders_stumble_over(payload: bytes) -> None:
    one, other = made()
    try:
        other.receive(rightly_signed(one, payload))
    except LinkError:
        assert other.phase is Phase.ENDED


def test_the_end() -> None:
    other = made()[1]
    assert str(other.receive_end()) == "the other side has closed the link"
    other = made()[1]
    other.receive(b"\0\0")
    error = other.receive_end()
    assert type(error) is LinkLost
    assert str(error) == "the link has ended amid a frame"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"MLSTRM2\n", b"x"])
def test_who_speaks_another_protocol(said: bytes) -> None:
    other = receiver()
    with pytest.raises(LinkError, match="another protocol"):
        other.receive(said)
    # Nothing of ours is said to strangers.
    assert other.ready() == b""


@pytest.mark.parametrize(
    "said",
    [
        b"\x01\x02\x01",  # a hello of 513 bytes
        b"\x02\x00\x20",  # a proof before the hello
        b"\x03\x01\x01",  # a refusal of 257 bytes
        b"\x04\x00\x00",
        b"\x01\x00\x01\x00",  # a hello of one byte
        b"\x01\x00\x04\x00\x01\x00\x01",  # a hello that is cut
        b"\x01\x00\x65\x00\x01\x00\x01" + bytes(97),  # a region of 65 bytes
    ],
)
def test_a_handshake_that_is_not_one(said: bytes) -> None:
    with pytest.raises(LinkError):
        receiver().receive(MAGIC + said)


def test_a_refusal_is_fit_for_a_line_of_a_log() -> None:
    with pytest.raises(LinkRefused) as caught:
        receiver().receive(MAGIC + b"\x03\x00\x07a\n\x1b\xff\xc3\xa9b")
    assert str(caught.value) == "the other side refuses the link: a??\ufffdéb"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(at)]


def conversation() -> tuple[bytes, bytes]:
    """All that an origin and a receiver have said, with these nonces."""
    one, other = origin(), receiver()
    said, answered = shake_hands(one, other)
    said += b"".join(one.send(message) for message in TOLD)
    answered += b"".join(other.send(message) for message in ANSWERED)
    return said, answered


SAID, HEARD = conversation()


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    for machine, data, messages in ((receiver(), SAID, TOLD), (origin(), HEARD, ANSWERED)):
        found = [found for piece in pieces(data, cuts) for found in machine.receive(piece)]
        assert found == messages


def heard(machine: LinkConnection, data: bytes, cuts: list[int]) -> tuple[list[Message], bool]:
    """The messages in it, and whether it ends in a LinkError; anything else fails the test."""
    found: list[Message] = []
    try:
        for piece in pieces(data, cuts):
            found += machine.receive(piece)
    except LinkError:
        assert machine.phase is Phase.ENDED
        return found, True
    return found, False


@given(st.data())
def test_a_flipped_bit_is_never_a_wrong_message(data: st.DataObject) -> None:
    for make, said, messages in ((receiver, SAID, TOLD), (origin, HEARD, ANSWERED)):
        flipped = bytearray(said)
        bit = data.draw(st.integers(0, 8 * len(said) - 1))
        flipped[bit // 8] ^= 1 << bit % 8
        machine = make()
        found, is_ended = heard(machine, bytes(flipped), [bit // 8, bit // 16])
        assert found == messages[: len(found)]
        assert len(found) < len(messages)
        if not is_ended:
            # A length that has grown: the rest is awaited, and then it is not right.
            assert type(machine.receive_end()) is LinkLost


def test_every_bit_of_a_conversation_matters() -> None:
    # What follows makes good for lengths that have grown a little.
    more = bytes(1 << 12)
    for bit in range(8 * len(SAID)):
        flipped = bytearray(SAID + more)
        flipped[bit // 8] ^= 1 << bit % 8
        machine = receiver()
        found, is_ended = heard(machine, bytes(flipped), [])
        assert found == TOLD[: len(found)]
        assert len(found) < len(TOLD)
        assert is_ended or len(more) < len(machine._buffer)


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_garbage_is_a_link_error(data: bytes, is_after: bool, has_magic: bool) -> None:
    for at in (0, 1):
        machine = made()[at] if is_after else (origin, receiver)[at]()
        found, _ = heard(machine, MAGIC * has_magic + data, [len(data) // 2])
        assert found == []
