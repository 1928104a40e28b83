"""The file of regions: what is accepted, and the one line that says why something is not."""

from __future__ import annotations

import pytest

from millstream.errors import ConfigurationError
from millstream.globaltables.peers import Identity, Peer, parse_peers
from millstream.host.addresses import Tls

SECRET = "0123456789abcdef"
REGIONS = """
[regions.us-east-1]
number = 1
address = "127.0.0.1:7101"
[regions.eu-west-1]
number = 2
address = "[::1]:7102"
"""
PLAIN = f'secret = "{SECRET}"\n{REGIONS}'
TLS = '[tls]\ncertificate = "node.pem"\nkey = "/keys/node.key"\nauthority = "ca.pem"\n'


def no_file(name: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", name)


def why(text: str) -> str:
    """The one line that says why it is refused."""
    with pytest.raises(ConfigurationError) as caught:
        parse_peers(text, "us-east-1", no_file)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_a_plain_file() -> None:
    peers = parse_peers(PLAIN, "us-east-1", no_file)
    assert peers.own == Peer("us-east-1", 1, "127.0.0.1:7101")
    assert peers.others == (Peer("eu-west-1", 2, "[::1]:7102"),)
    assert peers.own.identity == Identity("us-east-1", 1)
    assert peers.secret == SECRET.encode()
    assert peers.tls is None


def test_certificates_are_beside_the_file_unless_they_say_where() -> None:
    text = f'secret = "{SECRET}"\n{TLS}{REGIONS.replace("127.0.0.1", "10.1.2.3")}'
    peers = parse_peers(text, "eu-west-1", no_file, "/etc/millstream")
    assert peers.tls == Tls("/etc/millstream/node.pem", "/keys/node.key", "/etc/millstream/ca.pem")
    assert peers.own.number == 2


def test_a_secret_in_a_file_of_its_own() -> None:
    files = {"link.secret": SECRET.encode() + b"\n"}
    text = f'secret_file = "link.secret"\n{REGIONS}'
    assert parse_peers(text, "us-east-1", files.__getitem__).secret == SECRET.encode()
    assert why(text) == "regions: secret_file link.secret: No such file or directory"


def test_the_secret_is_in_no_repr() -> None:
    peers = parse_peers(PLAIN, "us-east-1", no_file)
    assert SECRET not in repr(peers)
    assert SECRET not in str(peers)
    assert SECRET not in str(list(peers.__rich_repr__()))
    assert "eu-west-1" in repr(peers)


def test_another_machine_needs_tls_or_a_word() -> None:
    text = PLAIN.replace("127.0.0.1", "10.1.2.3")
    assert why(text) == (
        "regions: us-east-1: 10.1.2.3:7101 is another machine, and without [tls] frames are"
        " authenticated but not private; give certificates, or say allow_plain = true"
    )
    assert parse_peers(f"allow_plain = true\n{text}", "us-east-1", no_file).tls is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("number = 2", "number = 1", "eu-west-1 and us-east-1 have the same number"),
        ("[::1]:7102", "127.0.0.1:7101", "eu-west-1 and us-east-1 have the same address"),
        ("number = 2", "number = 0", "eu-west-1: number must be 1 to 65535"),
        ("number = 2", "number = 65536", "eu-west-1: number must be 1 to 65535"),
        ("number = 2", "number = true", "eu-west-1: number must be a whole number"),
        ("number = 2", "", "eu-west-1: number must be a whole number"),
        ("number = 2", "number = 2\nport = 3", "eu-west-1: unknown key port"),
        ("[::1]:7102", "[::1]", "eu-west-1: '[::1]' is not an address like 127.0.0.1:7101"),
        ("[::1]:7102", "::1:7102", "eu-west-1: '::1:7102' is not an address like 127.0.0.1:7101"),
        ("[::1]:7102", "localhost:65536", "is not an address like"),
        ("[::1]:7102", "http://localhost:1", "is not an address like"),
        ("[::1]:7102", "localhost:0", "address must name a port, not 0"),
        ("[::1]:7102", "", "eu-west-1: address must be a non-empty string"),
        ("eu-west-1", "Europe", "'Europe': a region must look like us-east-1"),
        ("us-east-1", "us-west-1", "us-east-1, this node's own region, is not listed"),
        (SECRET, SECRET[:-1], "the secret must have 16 to 1024 bytes"),
        ("secret", "secrets", "unknown key secrets"),
        (f'secret = "{SECRET}"', "", "one of secret and secret_file must be given"),
        ("[regions", 'secret_file = "x"\n[regions', "one of secret and secret_file must be given"),
        (f'"{SECRET}"', f"'{SECRET}", "not TOML (at "),
        (f'"{SECRET}"', "7", "secret must be a string"),
        ("[regions.us", 'allow_plain = "x"\n[regions.us', "allow_plain must be true or false"),
        ("[regions.us", "tls = 1\n[regions.us", "tls must be a table"),
        ("[regions.us", '[tls]\nkey = "k"\n[regions.us', "tls: certificate is missing"),
        (REGIONS, "", "no [regions.NAME] is given"),
        (REGIONS, "[regions]\nus-east-1 = 1", "us-east-1 must be a table"),
    ],
)
def test_what_is_refused(old: str, new: str, said: str) -> None:
    assert old in PLAIN
    message = why(PLAIN.replace(old, new, 1))
    assert message.startswith("regions: ")
    assert said in message


def test_there_are_not_too_many_regions() -> None:
    regions = "".join(
        f'[regions.r{n}]\nnumber = {n}\naddress = "localhost:{n}"\n' for n in range(1, 34)
    )
    assert why(f'secret = "{SECRET}"\n{regions}') == "regions: 33 regions; at most 32 can be"
