"""What a serving node needs to be one region of several, from the file that ``--peers`` names.

Loaded when there is such a file: most nodes are alone, and their starts shall not pay for it.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from pathlib import Path

import msgspec

from .actors.regions import RegionSettings
from .errors import ConfigurationError
from .globaltables.faults import LinkFaults
from .globaltables.peers import parse_peers
from .host.clock import SkewedClock
from .host.entropy import Entropy
from .host.host import Host
from .host.links import RealLinks

_CHANCE_BYTES = 6


def load_regions(path: str, own_region: str, host: Host) -> tuple[RegionSettings, Host]:
    """The regions of the file, with links over TCP; and the host, with a clock that drills skew.

    Raises ConfigurationError for a file that cannot be read or is wrong, and for certificates that
    are none.
    """
    folder = os.path.dirname(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read {path}: {reason}") from None
    peers = parse_peers(
        text, own_region, lambda name: Path(os.path.join(folder, name)).read_bytes(), folder
    )
    settings = RegionSettings(peers, RealLinks(peers.tls), LinkFaults(chance_of(host.entropy)))
    return settings, with_skew(host)


def with_skew(host: Host) -> Host:
    """The host, with a clock that can be set wrong."""
    return msgspec.structs.replace(host, clock=SkewedClock(host.clock))


def chance_of(entropy: Entropy) -> Callable[[], float]:
    """Numbers from 0 up to, not with, 1, made of a host's entropy."""

    def chance() -> float:
        number = int.from_bytes(entropy.token_bytes(_CHANCE_BYTES), "big")
        return float(number / (1 << 8 * _CHANCE_BYTES))

    return chance
