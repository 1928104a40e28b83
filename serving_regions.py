"""What a serving node needs to be one region of several, from the file that ``--peers`` names.

Loaded when there is such a file: most nodes are alone, and their starts shall not pay for it.
"""

from __future__ import annotations

import os.path
from pathlib import Path

import msgspec

from .actors.regions import RegionSettings
from .errors import ConfigurationError
from .globaltables.faults import LinkFaults
from .globaltables.peers import parse_peers
from .host.clock import SkewedClock
from .host.entropy import EntropyChance
from .host.host import Host
from .host.links import RealLinks


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
    faults = LinkFaults(EntropyChance(host.entropy).random)
    settings = RegionSettings(peers, RealLinks(peers.tls), faults)
    return settings, msgspec.structs.replace(host, clock=SkewedClock(host.clock))
