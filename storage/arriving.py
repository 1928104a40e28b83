"""Decides what comes from other regions: last writer wins, item by item, and what follows from it.

Functions of a ``TableState``, which keeps what they propose as pending like everything else. See
``docs/global-tables.md``; the state beside the rows is ``replica.Replica``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ..limits import REPLICATION_ENTRY_BYTES, REPLICATION_FILL_ROWS
from ..model.values import decode_item, encode_item, item_size_bytes
from ..model.versions import Version
from .arrivals import Arrival
from .commands import Collect, Collected, Contended, Fill, Replicate, Replicated
from .records import Effect, Received, TombstonesDropped
from .rows import Row, decode_row
from .views import Evaluation

if TYPE_CHECKING:
    from .table_state import TableState


def evaluate_replication(
    state: TableState, command: Replicate | Fill | Collect, hlc: int
) -> Evaluation:
    """Decide ``command`` on a global table's partition; ``hlc`` is for a write of its own."""
    if not state.replica.tree:
        # It has left its group since it was asked.
        left = isinstance(command, Collect)
        return Evaluation(Collected(0, None) if left else Contended())
    match command:
        case Replicate():
            return _replicate(state, command, hlc)
        case Fill():
            return _fill(state, command, hlc)
        case Collect():
            return _collect(state, command)


def _replicate(state: TableState, command: Replicate, hlc: int) -> Evaluation:
    replica, source = state.replica, command.source
    known = replica.receiving(source)
    if known is not None and known.cursor is None and command.lsn <= known.lsn:
        return Evaluation(Replicated(0), waits=replica.is_receiving(source))
    if any(state.holds(arrival.key) for arrival in command.arrivals):
        return Evaluation(Contended())
    effects, result = _arrive(state, command.arrivals, hlc)
    if result.left:
        return Evaluation(result, tuple(effects), True)
    if not effects and not command.notes:
        # Everything was known, and durable: what is pending here may be it.
        return Evaluation(result, waits=bool(state.pending))
    if command.is_part:
        return Evaluation(result, tuple(effects), True)
    received = Received(source, command.lsn, None, 0 if known is None else known.round)
    replica.receive(received)
    return Evaluation(result, (*effects, received), True)


def _arrive(
    state: TableState, arrivals: Sequence[Arrival], hlc: int
) -> tuple[list[Effect], Replicated]:
    """The effects of what is news among ``arrivals``, and of what the policy says to it."""
    replica = state.replica
    effects: list[Effect] = []
    applied = conflicts = resolved = size_bytes = 0
    for number, arrival in enumerate(arrivals):
        if size_bytes >= REPLICATION_ENTRY_BYTES:
            left = len(arrivals) - number
            return effects, Replicated(applied, conflicts, resolved, left)
        key = arrival.key
        view = state.sight(key)
        known = replica.version_of(key, view.old)
        if not replica.is_news(arrival, known):
            continue
        beats = replica.conflicts(arrival, known)
        if arrival.body is not None:
            view.new = Row(
                arrival.body,
                arrival.size_bytes,
                arrival.hlc,
                arrival.region,
                arrival.transaction,
            )
        version = Version(arrival.hlc, arrival.region)
        loser = view.old
        size_bytes += _bytes(view.old) + _bytes(view.new)
        effects.append(
            state.effect_at(
                key, view, version, arrival.transaction, arrival.hops, known, beats
            )
        )
        applied += 1
        conflicts += beats
        if beats and state.resolve is not None:
            effect = _resolved(state, key, loser, view.new, version, hlc)
            if effect is not None:
                effects.append(effect)
                resolved += 1
    return effects, Replicated(applied, conflicts, resolved)


def _bytes(row: Row | None) -> int:
    return 64 if row is None else len(row.body)


def _resolved(
    state: TableState, key: bytes, loser: Row | None, winner: Row | None, base: Version, hlc: int
) -> Effect | None:
    """One more write, of this region, if the policy wants it otherwise than versions do."""
    assert state.resolve is not None
    won = None if winner is None else decode_item(winner.body)
    item = state.resolve(None if loser is None else decode_item(loser.body), won)
    if item is won:
        return None
    view = state.sight(key)
    if item is not None:
        view.new = Row(encode_item(item), item_size_bytes(item), hlc, state.region)
    return state.effect_at(
        key, view, Version(hlc, state.region), 0, 0, base, resolves=True
    )


def _fill(state: TableState, command: Fill, hlc: int) -> Evaluation:
    replica, table = state.replica, state.table
    rows: list[tuple[bytes, bytes]] = []
    arrivals, cursor, size_bytes = command.arrivals, None, 0
    for key, data in state.btree.range(table.tree, command.low, command.high):
        if len(rows) >= REPLICATION_FILL_ROWS or size_bytes >= REPLICATION_ENTRY_BYTES:
            cursor = key
            arrivals = tuple(arrival for arrival in arrivals if arrival.key < key)
            break
        rows.append((key, data))
        size_bytes += len(data)
    there = {arrival.key for arrival in arrivals}
    here = [(key, decode_row(key, data)) for key, data in rows if key not in there]
    if any(state.holds(key) for key in (*there, *(key for key, _ in here))):
        return Evaluation(Contended())
    effects, result = _arrive(state, arrivals, hlc)
    if result.left:
        # Arrivals are in the order of their keys.
        cursor = arrivals[-result.left].key
        here = [(key, row) for key, row in here if key < cursor]
    for key, row in here:
        region = replica.region_of(row.region)
        if key in state.pending or row.hlc > command.covered.get(region, 0):
            continue
        # It was seen there and is gone: deleted, or replaced by what is still to come.
        version = Version(row.hlc, region)
        effects.append(
            state.effect_at(key, state.sight(key), version, row.transaction, 0, version)
        )
    if cursor is not None:
        result = msgspec.structs.replace(result, left=0, cursor=cursor)
    received = Received(
        command.source,
        command.lsn,
        command.cursor if cursor is None else cursor,
        command.round,
    )
    replica.receive(received)
    return Evaluation(result, (*effects, received), True)


def _collect(state: TableState, command: Collect) -> Evaluation:
    replica = state.replica
    keys: list[bytes] = []
    cursor = None
    rows = state.btree.range(replica.tree, command.start, command.end)
    for looked_at, (key, data) in enumerate(rows):
        if looked_at == command.rows_max:
            cursor = key
            break
        if decode_row(key, data).hlc <= command.horizon and key not in state.pending:
            keys.append(key)
    result = Collected(len(keys), cursor)
    if not keys:
        return Evaluation(result)
    return Evaluation(result, (TombstonesDropped(command.horizon, keys),), True)
