"""Opens a data directory in this process and compares it with what may be in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import trio

# The limits come first: what is imported later copies them.
from . import small_limits

# isort: split
from ..actors.data_directory import open_node
from ..actors.node import NodeSettings
from ..api.credentials import NAMESPACE_DEFAULT
from ..errors import StorageError
from ..model.schema import Status
from ..model.values import decode_item
from .load import GLOBAL_INDEX, LOCAL_INDEX, TABLE, Item, Key, State, check_indexes, check_items

INDEX_SECONDS_MAX = 30.0
SETTINGS = NodeSettings(memtable_bytes=small_limits.MEMTABLE_BYTES)


def inspect(
    data: Path, engine: str, possible: Mapping[Key, list[State]], *, table_is_certain: bool
) -> list[str]:
    """One sentence for each thing that is wrong with the data directory ``data``.

    Opens a node on it, which recovers it, waits for the index and closes it in good order; then
    once more, since a recovery must not harm what it has recovered.
    """
    wrong: list[str] = []
    for attempt in ("", "at the second opening: "):
        try:
            found = trio.run(_inspect, data, engine, possible, table_is_certain)
        except Exception as error:  # noqa: BLE001 - every refusal and every defect is a finding
            reasons = "; ".join(
                f"{type(leaf).__name__}: {leaf}" if str(leaf) else type(leaf).__name__
                for leaf in leaves(error)
            )
            kind = "refused to open" if _is_refusal(error) else "failed"
            found = [f"{kind}: {reasons}"]
        wrong += [attempt + line for line in found]
        if wrong:
            break
    return wrong


async def _inspect(
    data: Path, engine: str, possible: Mapping[Key, list[State]], table_is_certain: bool
) -> list[str]:
    async with open_node(str(data), SETTINGS, log_engine=engine) as node:
        ref = node.tables.find(NAMESPACE_DEFAULT, TABLE)
        if ref is None:
            return ["the table is gone"] if table_is_certain else []
        with trio.fail_after(INDEX_SECONDS_MAX):
            await node.tables.wait_active(NAMESPACE_DEFAULT, TABLE)
            for builder in node.index_builders():
                await builder.caught_up()
        assert ref.table.status is Status.ACTIVE

        def rows(index: str | None) -> list[Item]:
            return [decode_item(row.body) for _, row in ref.rows(index, b"", None)]

        items = rows(None)
        wrong = check_items(items, possible)
        wrong += check_indexes(items, rows(GLOBAL_INDEX), rows(LOCAL_INDEX))
        counted = ref.statistics().item_count
        if counted != len(items):
            wrong.append(f"the table counts {counted} items and holds {len(items)}")
        return wrong


def _is_refusal(error: BaseException) -> bool:
    return all(isinstance(leaf, StorageError | OSError) for leaf in leaves(error))


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
