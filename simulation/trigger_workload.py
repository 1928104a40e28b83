"""A workload of changes and the handlers that follow them: the third kind of world.

Clients own their items and change them; two handlers of the node's own triggers follow the table,
on the loop. The plain one remembers, outside of the world, what it saw in which life; the other
counts, through its transaction, how many changes each item had and a digest of them in their order.
Both take their time, fail now and then, and meet crashes anywhere; shards roll over all the while.

At rest the stream must show what was acknowledged, in order; the plain handler must have seen every
change, in one life each once and in order, in another one from some earlier change on; the other
must have counted each exactly once.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import trio

from ..actors.mappings import Mappings
from ..actors.node import Node
from ..actors.tables import TableRef
from ..errors import OutcomeUnknown, RequestError, Unavailable
from ..handlers import start_triggers
from ..model.schema import KeyAttribute, KeySchema, NewTable, Status
from ..model.values import Item, decode_item, encode_item, item_size_bytes
from ..storage.commands import Delete, Put
from ..storage.indexes import primary_key
from ..streams.records import key_item
from ..streams.sequence import sequence_text
from ..triggers import make_trigger
from .options import Options
from .simulated_node import Gone, SimulatedNode

SOURCE, COUNTED = "source", "counted"
_SETBACKS = (RequestError, Unavailable, OutcomeUnknown, Gone)
_PAGE = 1 << 30


class _Item:
    """What an item's owner knows: values in order (None: removed), and those in doubt."""

    __slots__ = ("acknowledged", "tried")

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.tried: set[str] = set()


class TriggerWorkload:
    """See the module's text."""

    def __init__(self, sim: SimulatedNode, options: Options, stream: Any, tick: Any) -> None:
        assert options.triggers is not None
        self._sim = sim
        self._options = options
        self._more = options.triggers
        self._tick = tick
        self._clients = [stream(f"client {number}") for number in range(options.clients)]
        self._handlers: random.Random = stream("handlers")
        self._items: dict[str, _Item] = {}
        self._mappings: Mappings
        #: Handlers fail no more: the world heals.
        self._is_calm = False
        #: Item -> (life, sequence) as the plain handler saw them.
        self._seen: dict[str, list[tuple[int, str]]] = {}
        self._operations = self._unknown = self._invocations = self._failures = 0
        self._changes = self._shards = self._repeats = 0
        sim.on_node = self._start

    async def _start(self, node: Node) -> None:
        """In every life of the node."""
        life = self._sim.machine.life

        async def see(event: dict[str, Any], context: Any) -> None:
            await self._dawdle()
            # A machine that has crashed does nothing any more.
            if not self._sim.machine.crashed and life == self._sim.machine.life:
                for record in event["Records"]:
                    key, sequence = _place(record)
                    self._seen.setdefault(key, []).append((life, sequence))
            await self._dawdle()

        async def count(event: dict[str, Any], context: Any) -> None:
            self._invocations += 1
            if self._fails():
                raise ValueError("by toss")
            counted: dict[str, list[str]] = {}
            for record in event["Records"]:
                key, sequence = _place(record)
                counted.setdefault(key, []).append(sequence)
            for key, sequences in counted.items():
                found = await context.transaction.get(COUNTED, {"id": key})
                item = found or {"id": key, "n": 0, "digest": 0}
                digest = item["digest"]
                for sequence in sequences:
                    digest = zlib.crc32(sequence.encode(), digest)
                await self._dawdle()
                changed = {"id": key, "n": item["n"] + len(sequences), "digest": digest}
                context.transaction.put(COUNTED, changed)
            if self._fails():
                raise ValueError("by toss, at the end")

        self._mappings = await start_triggers(
            node,
            [
                make_trigger(SOURCE, see, name="see", batch_size=self._more.batch_size),
                make_trigger(
                    SOURCE,
                    count,
                    name="count",
                    batch_size=self._more.batch_size,
                    parallelization_factor=self._more.lanes,
                    bisect_batch_on_function_error=self._more.bisects,
                ),
            ],
            namespace="",
        )

    def _fails(self) -> bool:
        fails = not self._is_calm and self._handlers.random() < self._more.failures
        self._failures += fails
        return fails

    async def _dawdle(self) -> None:
        await trio.sleep(self._handlers.expovariate(1 / self._options.think_seconds))

    # Clients.

    async def work(self) -> None:
        for name in (SOURCE, COUNTED):
            await self._create(name)
        async with trio.open_nursery() as clients:
            for number, rng in enumerate(self._clients):
                clients.start_soon(self._client, number, rng)

    async def _create(self, name: str) -> None:
        key = KeySchema((KeyAttribute("id", "S"),))
        view = "NEW_AND_OLD_IMAGES" if name == SOURCE else None
        new = NewTable(
            "", name, key, {"id": "S"}, stream_view=view, partition_count=self._options.partitions
        )
        while True:
            node = await self._sim.ready()
            try:
                with self._sim.within_life():
                    if node.tables.find("", name) is None:
                        await node.tables.create(new)
                    await node.tables.wait_active("", name)
                    return
            except _SETBACKS:
                await trio.sleep(0.01)

    async def _client(self, number: int, rng: random.Random) -> None:
        for count in range(self._options.operations):
            await trio.sleep(rng.expovariate(1 / self._options.think_seconds))
            key = f"{number}-{rng.randrange(self._more.items)}"
            await self._change(rng, key, f"{number}.{count}")

    async def _change(self, rng: random.Random, key: str, token: str) -> None:
        node = await self._sim.ready()
        ref = node.tables.find("", SOURCE)
        assert ref is not None
        item: Item = {"id": {"S": key}, "v": {"S": token}}
        place = primary_key(ref.table, item)
        command: Put | Delete = Put(place, encode_item(item), item_size_bytes(item))
        is_removal = rng.random() < 0.2
        if is_removal:
            # What is removed is known by its old image, and whether there was any does not matter.
            command = Delete(place)
        known = self._items.setdefault(key, _Item())
        self._operations += 1
        if not is_removal:
            known.tried.add(token)
        try:
            with self._sim.within_life():
                await ref.write(command)
        except (RequestError, Unavailable):
            known.tried.discard(token)
            return
        except (OutcomeUnknown, Gone):
            self._unknown += 1
            return
        if not is_removal:
            known.acknowledged.append(token)
        self._sim.machine.note("changed", key, token)

    # Rest and judgement.

    async def rest(self, node: Node) -> None:
        self._is_calm = True
        # What cancelled clients asked for may still be on its way.
        await trio.sleep(1.0)
        for name in (SOURCE, COUNTED):
            ref = node.tables.find("", name)
            assert ref is not None
            assert ref.table.status is Status.ACTIVE
        await self._mappings.drain()

    async def audit(self, node: Node) -> None:
        await trio.lowlevel.checkpoint()
        streams = node.tables.streams
        (stream,) = streams.of_namespace("", SOURCE)
        truth: dict[str, list[str]] = {}
        values: dict[str, list[str]] = {}
        for shard in stream.shards:
            page = streams.read(stream, shard, streams.first_sequence(shard), _PAGE, _PAGE)
            for change in page.changes:
                key = key_item(stream, change.key)["id"]["S"]
                truth.setdefault(key, []).append(sequence_text(change.sequence))
                if change.new is not None:
                    values.setdefault(key, []).append(decode_item(change.new)["v"]["S"])
        self._shards = len(stream.shards)
        self._changes = sum(map(len, truth.values()))
        self._check_stream(values)
        self._check_seen(truth)
        counted = node.tables.find("", COUNTED)
        assert counted is not None
        _check_counted(counted, truth)

    def _check_stream(self, values: dict[str, list[str]]) -> None:
        assert values.keys() <= self._items.keys(), "the stream has items that nobody wrote"
        for key, known in self._items.items():
            shown = values.get(key, [])
            assert len(set(shown)) == len(shown), f"the stream shows a change of {key} twice"
            assert set(shown) <= known.tried, f"the stream shows what {key} never was"
            wanted = set(known.acknowledged)
            kept = [value for value in shown if value in wanted]
            assert kept == known.acknowledged, f"the stream has lost changes of {key}"

    def _check_seen(self, truth: dict[str, list[str]]) -> None:
        assert self._seen.keys() <= truth.keys(), "a handler saw what is not in the stream"
        self._repeats = sum(map(len, self._seen.values())) - self._changes
        for key, sequences in truth.items():
            furthest, last = -1, (0, -1)
            for life, sequence in self._seen.get(key, ()):
                at = sequences.index(sequence)
                right = at == last[1] + 1 if life == last[0] else at <= furthest + 1
                assert right, f"a handler saw change {at} of {key} after {last[1]}"
                furthest, last = max(furthest, at), (life, at)
            assert furthest + 1 == len(sequences), f"a handler missed changes of {key}"

    def judge(self) -> dict[str, int]:
        return {
            "operations": self._operations,
            "unknown": self._unknown,
            "changes": self._changes,
            "shards": self._shards,
            "repeats": self._repeats,
            "invocations": self._invocations,
            "handler_failures": self._failures,
        }


def _place(record: dict[str, Any]) -> tuple[str, str]:
    inner = record["dynamodb"]
    return inner["Keys"]["id"]["S"], inner["SequenceNumber"]


def _check_counted(ref: TableRef, truth: dict[str, list[str]]) -> None:
    found = {}
    for _, row in ref.rows(None, b"", None):
        item = decode_item(row.body)
        found[item["id"]["S"]] = (int(item["n"]["N"]), int(item["digest"]["N"]))
    for key in truth.keys() | found.keys():
        digest = 0
        for sequence in truth.get(key, ()):
            digest = zlib.crc32(sequence.encode(), digest)
        wanted = (len(truth.get(key, ())), digest)
        assert found.get(key) == wanted, f"of {key} is counted {found.get(key)}, not {wanted}"
