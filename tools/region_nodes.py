"""Several regions as processes on this machine, linked through a ``LinkProxy`` or directly.

Each has a folder of its own with its file of regions, its data and its log. In a file, the others'
addresses are those of the proxy's routes, so that every link can be cut by itself.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .link_proxy import LinkProxy
from .load import Connection
from .server import Server

NAMES = ("us-east-1", "eu-west-1", "ap-south-1")
ACTIVE_SECONDS_MAX = 60.0
_SECRET = "a secret for one run on loopback"


def route_of(origin: str, receiver: str) -> str:
    """The proxy's name for the link on which ``origin`` sends."""
    return f"{origin}>{receiver}"


class RegionNodes:
    """Servers by region. They are started one by one, and may be killed."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] = NAMES,
        arguments: Sequence[str] = (),
        *,
        has_proxy: bool = True,
    ) -> None:
        self.names = tuple(names)
        ports = dict(zip(names, free_ports(len(names))))
        routes = {
            route_of(origin, receiver): ports[receiver]
            for origin, receiver in itertools.permutations(names, 2)
        }
        self.proxy = LinkProxy(routes) if has_proxy else None
        through = routes if self.proxy is None else self.proxy.ports
        self.servers: dict[str, Server] = {}
        for name in names:
            home = folder / name
            home.mkdir(parents=True, exist_ok=True)
            addresses = {
                other: ports[name] if other == name else through[route_of(name, other)]
                for other in names
            }
            file = home / "regions.toml"
            file.write_text(regions_file(addresses), encoding="utf-8")
            self.servers[name] = Server(
                ["--data", str(home / "data"), "--region", name, "--peers", str(file), *arguments],
                home / "server.log",
            )

    def start(self) -> None:
        """All of them."""
        for server in self.servers.values():
            server.start()

    def close(self) -> None:
        """Kill them, and the proxy."""
        for server in self.servers.values():
            server.kill()
        if self.proxy is not None:
            self.proxy.close()

    def link(self, word: str, one: str, other: str) -> None:
        """``cut``, ``stall`` or ``heal`` both ways between two regions."""
        assert self.proxy is not None
        for route in (route_of(one, other), route_of(other, one)):
            getattr(self.proxy, word)(route)

    def heal(self) -> None:
        """Every link."""
        for one, other in itertools.combinations(self.names, 2):
            self.link("heal", one, other)

    def connection(self, name: str) -> Connection:
        """To one of them."""
        return Connection(self.servers[name].endpoint)

    def add_replicas(self, table: str, names: Sequence[str]) -> None:
        """Have the first region invite others, one when it is done with the one before."""
        connection = self.connection(self.names[0])
        try:
            for name in names:
                update = [{"Create": {"RegionName": name}}]
                members = {"TableName": table, "ReplicaUpdates": update}
                give_up = time.monotonic() + ACTIVE_SECONDS_MAX
                while True:
                    status, answer = connection.call("UpdateTable", members)
                    if status == 200:
                        break
                    if "ResourceInUse" not in answer["__type"] or time.monotonic() > give_up:
                        raise AssertionError(f"{name} is not invited: {answer}")
                    time.sleep(0.05)
        finally:
            connection.close()

    def wait_active(self, table: str, names: Sequence[str]) -> None:
        """Return when the table is active in each of these regions, and each says so of all."""
        give_up = time.monotonic() + ACTIVE_SECONDS_MAX
        for name in names:
            connection = self.connection(name)
            try:
                while not _is_active(connection, table, len(names)):
                    if time.monotonic() > give_up:
                        raise AssertionError(f"{table} does not become active in {name}")
                    time.sleep(0.05)
            finally:
                connection.close()

    def make_global(self, request: Mapping[str, Any], names: Sequence[str] | None = None) -> None:
        """A new table in these regions; all, if none are named. The first makes it."""
        names = self.names if names is None else names
        connection = self.connection(self.names[0])
        try:
            stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
            connection.create_tables([{**request, "StreamSpecification": stream}])
        finally:
            connection.close()
        self.add_replicas(request["TableName"], names[1:])
        self.wait_active(request["TableName"], names)


def _is_active(connection: Connection, table: str, regions: int) -> bool:
    status, answer = connection.call("DescribeTable", {"TableName": table})
    if status != 200:
        return False
    found = answer["Table"]
    replicas = found.get("Replicas", [])
    return (
        found["TableStatus"] == "ACTIVE"
        and len(replicas) == regions - 1
        and all(replica["ReplicaStatus"] == "ACTIVE" for replica in replicas)
    )


def regions_file(addresses: Mapping[str, int]) -> str:
    """The file of regions that has these ports on loopback; numbers are in the order of names."""
    lines = [f'secret = "{_SECRET}"']
    for number, name in enumerate(sorted(addresses), 1):
        lines += [
            f"[regions.{name}]",
            f"number = {number}",
            f'address = "127.0.0.1:{addresses[name]}"',
        ]
    return "\n".join(lines) + "\n"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
