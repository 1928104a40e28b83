"""The network between regions, as a program of its own: it can cut, stall and heal each link.

A *route* is the way from one region to another, and is dialled in place of the other's address.
``python -m millstream.tools.link_proxy`` takes the routes as its argument, tells their ports on its
standard output, and obeys lines of ``cut``, ``stall`` and ``heal`` with a route's name. It knows
nothing of what it carries, so that what it does to a link is independent of the node.

A route that is *cut* ends its connections and closes every new one at once; one that is *stalled*
takes connections and carries nothing, like a network that has lost every packet; *healed*, it goes
on, with the bytes that were held if nobody has given them up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial

import trio

PIECE_BYTES = 256 * 1024
START_SECONDS_MAX = 20.0


class LinkProxy:
    """The program, from outside. ``routes``: name -> the port that it leads to."""

    def __init__(self, routes: Mapping[str, int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "millstream.tools.link_proxy", json.dumps(routes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        #: Name -> the port to dial.
        self.ports: dict[str, int] = json.loads(self._process.stdout.readline())

    def cut(self, route: str) -> None:
        """End its connections, and refuse new ones."""
        self._say("cut", route)

    def stall(self, route: str) -> None:
        """Carry nothing."""
        self._say("stall", route)

    def heal(self, route: str) -> None:
        """Carry everything again."""
        self._say("heal", route)

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self, word: str, route: str) -> None:
        assert route in self.ports
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word} {route}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer == "done", f"the proxy says {answer!r}"


class _Route:
    """One way, in the program."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_cut = False
        #: What pieces wait for; replaced when it stalls.
        self._flowing = trio.Event()
        self._flowing.set()
        self._connections: set[trio.CancelScope] = set()

    def obey(self, word: str) -> None:
        self._is_cut = word == "cut"
        if word == "stall":
            self._flowing = trio.Event()
        else:
            self._flowing.set()
        if self._is_cut:
            for scope in list(self._connections):
                scope.cancel()

    async def carry(self, near: trio.SocketStream) -> None:
        """One connection, to its end."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                async with near:
                    await self._flowing.wait()
                    if self._is_cut:
                        return
                    try:
                        far = await trio.open_tcp_stream("127.0.0.1", self._port)
                    except OSError:
                        return
                    async with far, trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, near, far, scope)
                        nursery.start_soon(self._pump, far, near, scope)
            finally:
                self._connections.discard(scope)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            while piece := await source.receive_some(PIECE_BYTES):
                await self._flowing.wait()
                await target.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        # Nobody leaves a link half open.
        scope.cancel()


async def _run(targets: Mapping[str, int]) -> None:
    routes = {name: _Route(port) for name, port in targets.items()}
    async with trio.open_nursery() as nursery:
        ports = {}
        for name, route in routes.items():
            listeners = await nursery.start(
                partial(trio.serve_tcp, route.carry, 0, host="127.0.0.1")
            )
            ports[name] = listeners[0].socket.getsockname()[1]
        print(json.dumps(ports), flush=True)
        async for line in trio.wrap_file(sys.stdin):
            word, _, name = line.strip().partition(" ")
            routes[name].obey(word)
            print("done", flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_run, json.loads(sys.argv[1]))
