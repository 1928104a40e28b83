"""The file of regions: who they are, where their nodes answer links, what they prove who with.

::

    secret = "at least 16 characters"     # or secret_file = "link.secret"
    allow_plain = false                   # true: other machines may be linked without TLS
    [tls]                                 # optional: links are private, too
    certificate = "node.pem"
    key = "node.key"
    authority = "ca.pem"
    [regions.us-east-1]
    number = 1
    address = "127.0.0.1:7101"
    [regions.eu-west-1]
    number = 2
    address = "127.0.0.1:7102"

Every region is listed in every region's file; one's own address says where to listen. This module
is pure: the caller hands it the text and a function that reads the secret's file. The secret is in
no message and in no ``repr``.
"""

from __future__ import annotations

import os.path
import re
import tomllib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from ..config import is_loopback
from ..errors import ConfigurationError
from ..host.addresses import Tls, split_address
from ..limits import (
    LINK_SECRET_BYTES_MAX,
    LINK_SECRET_BYTES_MIN,
    REGION_BYTES_MAX,
    REGIONS_MAX,
)

REGION_NUMBER_MAX = 65_535

ReadFile: TypeAlias = Callable[[str], bytes]


class Identity(msgspec.Struct, frozen=True):
    """Who is at an end of a link. The number is the region's in versions of items."""

    region: str
    number: int

    def __str__(self) -> str:
        return f"{self.region} (number {self.number})"


class Peer(msgspec.Struct, frozen=True):
    """A region and where its node answers links."""

    region: str
    number: int
    address: str

    @property
    def identity(self) -> Identity:
        """What it proves to be."""
        return Identity(self.region, self.number)


class Peers(msgspec.Struct, frozen=True):
    """The file's content, as the region ``own`` sees it. ``others`` are in the order of names."""

    own: Peer
    others: tuple[Peer, ...]
    secret: bytes
    tls: Tls | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("own", self.own), ("others", self.others), ("tls", self.tls)]

    def __repr__(self) -> str:
        return f"Peers({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def parse_peers(text: str, own_region: str, read_file: ReadFile, folder: str = "") -> Peers:
    """The regions of a file with this text.

    ``read_file`` is given the secret file's name as the file spells it, relative to the file's own
    folder; ``folder`` is put before the names of certificates. Raises ConfigurationError.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # A parser that is asked why may quote the line, and the line may be the secret's.
        place = re.search(r"\(at [^()]*\)$", str(error))
        where = f" {place[0]}" if place else ""
        raise ConfigurationError(f"regions: not TOML{where}") from None
    _check_names("", content, {"secret", "secret_file", "allow_plain", "tls", "regions"})
    tls = _parse_tls(content.get("tls"), folder)
    peers = _parse_regions(content.get("regions"))
    allow_plain = content.get("allow_plain", False)
    if not isinstance(allow_plain, bool):
        raise ConfigurationError("regions: allow_plain must be true or false")
    if tls is None and not allow_plain:
        for peer in peers:
            _check_private(peer)
    if own_region not in (peer.region for peer in peers):
        raise ConfigurationError(f"regions: {own_region}, this node's own region, is not listed")
    return Peers(
        own=next(peer for peer in peers if peer.region == own_region),
        others=tuple(peer for peer in peers if peer.region != own_region),
        secret=_parse_secret(content, read_file),
        tls=tls,
    )


def _parse_secret(content: dict[str, Any], read_file: ReadFile) -> bytes:
    if ("secret" in content) == ("secret_file" in content):
        raise ConfigurationError("regions: one of secret and secret_file must be given")
    if "secret" in content:
        if not isinstance(content["secret"], str):
            raise ConfigurationError("regions: secret must be a string")
        secret = content["secret"].encode()
    else:
        name = _string("secret_file", content["secret_file"])
        try:
            # An editor ends the line; that is not a part of the secret.
            secret = read_file(name).strip()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigurationError(f"regions: secret_file {name}: {reason}") from None
    if not LINK_SECRET_BYTES_MIN <= len(secret) <= LINK_SECRET_BYTES_MAX:
        raise ConfigurationError(
            f"regions: the secret must have {LINK_SECRET_BYTES_MIN} to"
            f" {LINK_SECRET_BYTES_MAX} bytes"
        )
    return secret


def _parse_tls(content: object, folder: str) -> Tls | None:
    if content is None:
        return None
    if not isinstance(content, dict):
        raise ConfigurationError("regions: tls must be a table")
    names = ("certificate", "key", "authority")
    _check_names("tls: ", content, set(names))
    for name in names:
        if name not in content:
            raise ConfigurationError(f"regions: tls: {name} is missing")
    return Tls(*(os.path.join(folder, _string(f"tls: {name}", content[name])) for name in names))


def _parse_regions(content: object) -> list[Peer]:
    if not isinstance(content, dict) or not content:
        raise ConfigurationError("regions: no [regions.NAME] is given")
    if len(content) > REGIONS_MAX:
        raise ConfigurationError(f"regions: {len(content)} regions; at most {REGIONS_MAX} can be")
    peers = [_parse_peer(region, content[region]) for region in sorted(content)]
    numbers: dict[int, str] = {}
    addresses: dict[str, str] = {}
    for peer in peers:
        other = numbers.setdefault(peer.number, peer.region)
        if other != peer.region:
            raise ConfigurationError(f"regions: {other} and {peer.region} have the same number")
        other = addresses.setdefault(peer.address, peer.region)
        if other != peer.region:
            raise ConfigurationError(f"regions: {other} and {peer.region} have the same address")
    return peers


def _parse_peer(region: str, content: object) -> Peer:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", region) or len(region) > REGION_BYTES_MAX:
        raise ConfigurationError(f"regions: {region!r}: a region must look like us-east-1")
    if not isinstance(content, dict):
        raise ConfigurationError(f"regions: {region} must be a table")
    _check_names(f"{region}: ", content, {"number", "address"})
    number = content.get("number")
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigurationError(f"regions: {region}: number must be a whole number")
    if not 1 <= number <= REGION_NUMBER_MAX:
        raise ConfigurationError(f"regions: {region}: number must be 1 to {REGION_NUMBER_MAX}")
    address = _string(f"{region}: address", content.get("address"))
    try:
        _, port = split_address(address)
    except ConfigurationError as error:
        raise ConfigurationError(f"regions: {region}: {error}") from None
    if port == 0:
        raise ConfigurationError(f"regions: {region}: address must name a port, not 0")
    return Peer(region, number, address)


def _check_private(peer: Peer) -> None:
    host, _ = split_address(peer.address)
    if not is_loopback(host):
        raise ConfigurationError(
            f"regions: {peer.region}: {peer.address} is another machine, and without [tls] frames"
            " are authenticated but not private; give certificates, or say allow_plain = true"
        )


def _check_names(where: str, content: dict[str, Any], known: set[str]) -> None:
    for name in content:
        if name not in known:
            raise ConfigurationError(f"regions: {where}unknown key {name}")


def _string(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"regions: {where} must be a non-empty string")
    return value
