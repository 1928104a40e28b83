"""Where the nodes of several regions are: the files that ``millstream regions up`` leaves behind.

::

    DIR/regions.toml       names, numbers and addresses of links; the nodes read it (--peers)
    DIR/endpoints.toml     region = "URL", while the nodes run
    DIR/link.secret        what links are proved with
    DIR/REGION/            a region's data
    DIR/REGION.log         what its node has said

Regions keep their numbers, since the data name regions by them.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import socket
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ..api.operations.triggers import PREFIX
from ..demo.client import Client
from ..errors import ConfigurationError
from ..globaltables.peers import parse_peers

REGIONS_FILE = "regions.toml"
ENDPOINTS_FILE = "endpoints.toml"
SECRET_FILE = "link.secret"
REGION_PATTERN = r"[a-z0-9]+(-[a-z0-9]+)*"
_SECRET_BYTES = 32


class NotFound(Exception):
    """There is nobody to ask; says why."""


class Place(msgspec.Struct, frozen=True):
    """One region's node: its name (a URL until it has said one), and how to call it."""

    name: str
    endpoint: str
    client: Client

    def describe(self) -> dict[str, Any]:
        """What it says of itself and the others. Raises Refused, OSError."""
        return self.client.call(PREFIX + "DescribeRegions")


@contextmanager
def found_places(arguments: argparse.Namespace) -> Iterator[dict[str, Place]]:
    """The nodes that the command line means, by region.

    Raises NotFound where the files name none, ValueError for an endpoint that is none.
    """
    environment = os.environ
    key = environment.get("AWS_ACCESS_KEY_ID", "millstream")
    secret = environment.get("AWS_SECRET_ACCESS_KEY", "millstream")
    with ExitStack() as stack:
        places = {}
        for name, endpoint in _endpoints(arguments).items():
            # A node with credentials wants its own region in a signature.
            region = name if re.fullmatch(REGION_PATTERN, name) else "us-east-1"
            client = Client(endpoint, key, secret, region)
            stack.callback(client.close)
            place = Place(name, endpoint, client)
            if name == endpoint:
                place = msgspec.structs.replace(place, name=str(place.describe()["Region"]))
            places[place.name] = place
        yield places


def _endpoints(arguments: argparse.Namespace) -> dict[str, str]:
    """Region, or the URL where it is not said, -> URL."""
    if arguments.endpoint is not None:
        found = {}
        for part in arguments.endpoint.split(","):
            name, equals, url = part.strip().partition("=")
            found[name] = url if equals else name
        return found
    path = Path(arguments.directory) / ENDPOINTS_FILE
    try:
        return read_endpoints(path)
    except FileNotFoundError:
        raise NotFound(
            f"no regions run in {arguments.directory}: `millstream regions up` starts some; or say "
            "where they are (--endpoint URL,...)"
        ) from None


def read_endpoints(path: Path) -> dict[str, str]:
    """Region -> URL. Raises OSError, or NotFound for a file that somebody has written into."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(content["endpoints"], type=dict[str, str])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, msgspec.ValidationError):
        raise NotFound(f"{path} is not what `millstream regions up` writes") from None


def write_endpoints(folder: Path, endpoints: Mapping[str, str]) -> None:
    """Leave word where the nodes are."""
    lines = ["# Written by `millstream regions up`, which removes it when it ends.", "[endpoints]"]
    lines += [f'{region} = "{url}"' for region, url in endpoints.items()]
    (folder / ENDPOINTS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def settled_file(folder: Path, wanted: list[str]) -> tuple[Path, dict[str, int]]:
    """The regions file in ``folder``, with all of ``wanted`` in it; and the ports of links.

    Who is in it keeps its number, and its port if that is free; who is new gets the next number.
    Raises ConfigurationError for a file that is wrong, OSError.
    """
    path = folder / REGIONS_FILE
    known: dict[str, tuple[int, int]] = {}
    if path.exists():
        known = _known(path)
    last = max((number for number, _ in known.values()), default=0)
    for region in wanted:
        if region not in known:
            last += 1
            known[region] = (last, 0)
    ports = _free_ports({region: port for region, (_, port) in known.items()})
    secret_path = folder / SECRET_FILE
    if not secret_path.exists():
        with os.fdopen(os.open(secret_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(secrets.token_urlsafe(_SECRET_BYTES) + "\n")
    lines = [
        "# Written by `millstream regions up`. Numbers stay: the regions' data name them.",
        f'secret_file = "{SECRET_FILE}"',
    ]
    for region, (number, _) in sorted(known.items(), key=lambda entry: entry[1]):
        lines += ["", f"[regions.{region}]", f"number = {number}"]
        lines += [f'address = "127.0.0.1:{ports[region]}"']
    text = "\n".join(lines) + "\n"
    # Whatever a node would refuse is refused here, before anything is changed.
    parse_peers(text, next(iter(known)), lambda name: (folder / name).read_bytes())
    path.write_text(text, encoding="utf-8")
    return path, ports


def _known(path: Path) -> dict[str, tuple[int, int]]:
    """Region -> number and port of a file that ``settled_file`` wrote."""
    try:
        regions = tomllib.loads(path.read_text(encoding="utf-8"))["regions"]
        return {
            region: (int(each["number"]), int(each["address"].rpartition(":")[2]))
            for region, each in regions.items()
        }
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError,
            AttributeError):  # fmt: skip
        raise ConfigurationError(f"{path} is not what `millstream regions up` writes") from None


def _free_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """A free port for each, where possible the one that is wanted (0: none is)."""
    found = {}
    with ExitStack() as stack:
        for region, port in wanted.items():
            holder = stack.enter_context(socket.socket())
            # As the node does: a connection that was closed a moment ago holds nothing.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind(("127.0.0.1", port))
            except OSError:
                holder.bind(("127.0.0.1", 0))
            found[region] = int(holder.getsockname()[1])
    return found
