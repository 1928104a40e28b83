"""How a link's other end is found and believed, as values: addresses and certificates' files."""

from __future__ import annotations

import re

import msgspec

from ..errors import ConfigurationError


class Tls(msgspec.Struct, frozen=True):
    """Paths of PEM files: this node's certificate and key, and the authority of all nodes'.

    Certificates with an extended key usage need both clientAuth and serverAuth.
    """

    certificate: str
    key: str
    authority: str


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an IPv6 address has brackets. Raises ConfigurationError."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]{1,253}):([0-9]{1,5})", address)
    if found is None or int(found[2]) > 65_535:
        raise ConfigurationError(f"{address!r} is not an address like 127.0.0.1:7101")
    return found[1].strip("[]"), int(found[2])
