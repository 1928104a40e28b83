"""What tests of handlers need: events made of plain values, a context, and a clock to move.

A handler alone::

    from millstream.testing import lambda_context, stream_event

    def test_a_new_order_is_announced():
        event = stream_event(("INSERT", {"id": "a", "total": 5}))
        assert handler(event, lambda_context()) == {"announced": 1}

A handler on a database, where nobody waits for a real second::

    from millstream.testing import ManualClock

    async def test_a_window_of_a_minute():
        clock = ManualClock()
        async with open_database(triggers=triggers, clock=clock) as db:
            await db.table("orders").put({"id": "a"})
            clock.advance(60)
            await db.drain()

Events come from the very code that makes the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from .actors.tables import ACCOUNT
from .api.operations.tables_description import stream_arn, table_arn
from .errors import InvalidRequest
from .host import clock as host_clock
from .lambdas.batches import WindowCall, window_members
from .lambdas.context import HandlerTransaction, LambdaContext
from .lambdas.results import Invocation
from .limits import FUNCTION_MEMORY_MB_DEFAULT, HANDLER_TIMEOUT_SECONDS_DEFAULT
from .model.keys import encode_component, table_key
from .model.python_values import to_item
from .model.schema import KeyAttribute, KeySchema
from .model.values import Item, encode_item, item_size_bytes
from .streams.definition import STREAM_VIEWS, Shard, Stream, StreamView, shard_id_of
from .streams.records import Change, Renderer
from .streams.sequence import sequence_of

__all__ = ["ManualClock", "lambda_context", "stream_event"]

Plain: TypeAlias = dict[str, Any]

_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_REQUEST_ID: Final = "00000000-0000-4000-8000-000000000000"


class ManualClock:
    """A clock that stands still until it is moved: ``open_database(clock=ManualClock())``.

    Batching windows, retries, tumbling windows, the age of records and what streams keep follow
    it. What a handler itself waits for, and its timeout, do not. ::

        clock.advance(60)                     # a minute passes
        with clock.jumping():                 # every wait is over at once: all retries take place,
            await db.drain()                  # all windows end
    """

    __slots__ = ("_clock", "_is_jumping")

    def __init__(self, start: datetime = _START) -> None:
        self._clock = host_clock.ManualClock(_milliseconds(start.timestamp()))
        self._is_jumping = False

    @property
    def now(self) -> datetime:
        """What time it is, in UTC."""
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass. To the millisecond; raises ValueError for less than nothing."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if not 0 <= seconds < math.inf:
            raise ValueError("Time passes forwards only")
        self._clock.advance(_milliseconds(seconds))

    @contextmanager
    def jumping(self) -> Iterator[None]:
        """While this is open the clock goes, at once, to whatever time something waits for."""
        before, self._is_jumping = self._is_jumping, True
        self._clock.advance(0)
        try:
            yield
        finally:
            self._is_jumping = before

    # What a database asks of a clock.

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def now_seconds(self) -> float:
        return self._clock.now_seconds()

    def monotonic_seconds(self) -> float:
        return self._clock.monotonic_seconds()

    def seconds_until(self, at_ms: int) -> float:
        if self._is_jumping and at_ms > self._clock.now_ms():
            self._clock.advance(at_ms - self._clock.now_ms())
        return self._clock.seconds_until(at_ms)

    def when_moved(self, tell: Callable[[], None]) -> Callable[[], None]:
        return self._clock.when_moved(tell)


def stream_event(
    *changes: tuple[Any, ...],
    new: Plain | None = None,
    old: Plain | None = None,
    key: str | Sequence[str] = "id",
    view: StreamView = "NEW_AND_OLD_IMAGES",
    table: str = "table",
    region: str = "us-east-1",
    at: datetime = _START,
    state: Plain | None = None,
    window_seconds: int = 60,
    is_final: bool = False,
) -> dict[str, Any]:
    """The event that a handler gets for these changes, in this order.

    A change is ``("INSERT", new)``, ``("MODIFY", old, new)`` or ``("REMOVE", old)``, its items
    plain Python values as with ``Table.put``. A single one is as well said by ``old`` and ``new``::

        stream_event(("INSERT", {"id": "a", "n": 1}), ("REMOVE", {"id": "b", "n": 7}))
        stream_event(old={"id": "a", "n": 1}, new={"id": "a", "n": 2})

    ``key`` names the key attributes: the partition key's, or both. ``view`` is the stream's: what
    it does not show is left out. ``at`` is when all of it was written. With ``state`` it is an
    invocation of the tumbling window that ``at`` lies in; with ``is_final`` as well the window's
    last, which has no records::

        stream_event(("INSERT", {"id": "a"}), state={"count": 3})
        stream_event(state={"count": 4}, is_final=True)

    The same arguments give the same event. Raises InvalidRequest for changes that cannot be.
    """
    if new is not None or old is not None:
        changes = (*changes, _change_from(old, new))
    if view not in STREAM_VIEWS:
        raise InvalidRequest(f"view is one of {', '.join(STREAM_VIEWS)}, not {view!r}")
    images = [_images(change) for change in changes]
    names = [key] if isinstance(key, str) else list(key)
    at_ms = _milliseconds(at.timestamp())
    label = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}"
    shard = Shard(shard_id_of(at_ms, "00000000"), "log", 1)
    arn = stream_arn(table_arn(region, ACCOUNT, table), label)
    records = []
    for number, (before, after) in enumerate(images, 1):
        schema = _key_schema(names, before, after)
        stream = Stream("", table, "", label, view, schema, at_ms, 1, None, (shard,))
        change = _change(stream, sequence_of(number), before, after, at_ms)
        records.append(Renderer(stream, shard, arn, region).event_record(change))
    event: dict[str, Any] = {"Records": records}
    if state is not None:
        length_ms = window_seconds * 1000
        start_ms = at_ms - at_ms % length_ms
        event |= window_members(WindowCall(start_ms, start_ms + length_ms, state, is_final, False))
        event |= {"shardId": shard.shard_id, "eventSourceARN": arn}
    return event


def lambda_context(
    name: str = "handler",
    *,
    timeout: float = HANDLER_TIMEOUT_SECONDS_DEFAULT,
    memory_limit_mb: int = FUNCTION_MEMORY_MB_DEFAULT,
    request_id: str = _REQUEST_ID,
    transaction: HandlerTransaction | None = None,
    clock: host_clock.Clock | None = None,
    region: str = "us-east-1",
) -> LambdaContext:
    """The second argument of a handler, for a call that the test makes itself.

    The remaining time is ``timeout`` in seconds and stays so, unless ``clock`` (a ``ManualClock``)
    moves; ``log`` prints. A handler that writes through ``context.transaction`` is given one of
    the database's, which is committed when the block ends::

        async with db.transaction() as transaction:
            await handler(event, lambda_context(transaction=transaction))
    """
    invocation = Invocation(
        request_id=request_id,
        function_name=name,
        function_arn=f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}",
        version="$LATEST",
        memory_limit_mb=memory_limit_mb,
        timeout_seconds=timeout,
    )
    clock = ManualClock() if clock is None else clock
    return LambdaContext(invocation, clock.monotonic_seconds, print, transaction)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _change_from(old: Plain | None, new: Plain | None) -> tuple[Any, ...]:
    if old is None:
        return ("INSERT", new)
    return ("REMOVE", old) if new is None else ("MODIFY", old, new)


def _images(change: tuple[Any, ...]) -> tuple[Item | None, Item | None]:
    """The items before and after a change."""
    match change:
        case ("INSERT", new):
            return None, to_item(new)
        case ("MODIFY", old, new):
            return to_item(old), to_item(new)
        case ("REMOVE", old):
            return to_item(old), None
    raise InvalidRequest(
        '("INSERT", new), ("MODIFY", old, new) or ("REMOVE", old) is a change, '
        f"and {change!r} is not"
    )


def _key_schema(names: Sequence[str], *images: Item | None) -> KeySchema:
    """The schema that the items' key attributes follow."""
    if not 1 <= len(names) <= 2:
        raise InvalidRequest("A key has one attribute or two")
    schemas = []
    for image in images:
        if image is not None:
            kinds = [next(iter(image.get(name, {"": None}))) for name in names]
            for name, kind in zip(names, kinds):
                if kind not in ("S", "N", "B"):
                    raise InvalidRequest(f"An item lacks its key {name!r}: a str, number or bytes")
            attributes = tuple(KeyAttribute(name, kind) for name, kind in zip(names, kinds))
            schemas.append((KeySchema(attributes[:1], attributes[1:]), [image[n] for n in names]))
    if schemas[0] != schemas[-1]:
        raise InvalidRequest("A change leaves an item's key as it is")
    return schemas[0][0]


def _change(
    stream: Stream, sequence: int, before: Item | None, after: Item | None, at_ms: int
) -> Change:
    image = before if after is None else after
    assert image is not None
    parts = [encode_component(a.kind, image[a.name]) for a in stream.key.attributes()]
    kind = "REMOVE" if after is None else "INSERT" if before is None else "MODIFY"
    return Change(
        sequence=sequence,
        kind=kind,
        key=table_key(parts[0], parts[1] if len(parts) > 1 else None),
        new=encode_item(after) if after is not None and stream.shows_new else None,
        old=encode_item(before) if before is not None and stream.shows_old else None,
        new_size_bytes=0 if after is None else item_size_bytes(after),
        at_ms=at_ms,
        version=sequence,
        hops=0,
    )
