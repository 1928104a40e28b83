"""The Python API of several regions: one program, one network in memory, every drill."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

import millstream
from millstream import (
    ConfigurationError,
    InvalidRequest,
    Regions,
    ResourceNotFound,
    Triggers,
    open_regions,
)

NAMES = ("us-east-1", "eu-west-1", "ap-southeast-1")
US, EU, AP = NAMES
#: Time jumps wherever everybody waits.
pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.fixture
async def regions() -> AsyncIterator[Regions]:
    async with open_regions(dict.fromkeys(NAMES)) as regions:
        await regions[US].create_table("orders", partition_key="id")
        await regions.replicate("orders")
        yield regions


async def items(regions: Regions, region: str, table: str = "orders") -> list[Any]:
    return sorted([item async for item in regions[region].table(table).scan()], key=str)


async def equal(regions: Regions, table: str = "orders") -> list[Any]:
    """What all have; asserts that it is the same."""
    found = [await items(regions, name, table) for name in regions]
    assert all(each == found[0] for each in found)
    return found[0]


async def put(regions: Regions, region: str, key: str, **more: Any) -> None:
    await regions[region].table("orders").put({"id": key, **more})


async def test_what_is_written_anywhere_is_everywhere(regions: Regions) -> None:
    for name in NAMES:
        await put(regions, name, f"from {name}")
    await regions.settled("orders")
    assert len(await equal(regions)) == 3
    assert await regions[US].replicas("orders") == {AP: "ACTIVE", EU: "ACTIVE"}
    assert (len(regions), list(regions), repr(regions)) == (
        3, list(NAMES), "<Regions us-east-1, eu-west-1, ap-southeast-1>"
    )  # fmt: skip


async def test_a_partition_heals_and_the_last_writer_wins(regions: Regions) -> None:
    regions.partition(US, EU)
    await put(regions, US, "same", by="us")
    await put(regions, EU, "same", by="eu")
    with pytest.raises(TimeoutError, match="after 5 seconds: orders: eu-west-1 is waiting, 1 rec"):
        await regions.settled(seconds=5)
    status = regions.status()
    assert not status[US].peers[1].is_linked and status[US].peers[0].is_linked
    assert status[US].faults[EU].is_partitioned and status[EU].faults[US].is_partitioned
    late = [lag for lag in regions.lag("orders") if not lag.is_level]
    assert {(lag.source, lag.region, lag.entries) for lag in late} == {(US, EU, 1), (EU, US, 1)}
    regions.heal(US, EU)
    await regions.settled()
    assert [item["by"] for item in await equal(regions)] == ["eu"]
    assert regions.status()[US].faults == {}
    assert regions.status()[US].peers[1].conflicts == 1


async def test_a_pause_holds_back_and_a_delay_comes_late(regions: Regions) -> None:
    regions.pause(US, EU)
    await put(regions, US, "a")
    await trio.sleep(3)
    assert await items(regions, EU) == []
    assert len(await items(regions, AP)) == 1
    regions.resume(US, EU)
    await regions.settled()
    regions.delay(US, EU, 2.0)
    began = trio.current_time()
    await put(regions, US, "b")
    while len(await items(regions, EU)) < 2:  # noqa: ASYNC110 - what is waited for has no event
        await trio.sleep(0.1)
    assert 2.0 <= trio.current_time() - began < 3.0
    regions.heal()
    await regions.settled()


async def test_dropped_connections_lose_nothing(regions: Regions) -> None:
    for one, other in ((US, EU), (EU, AP), (US, AP)):
        regions.drop(one, other, 0.2)
    for number in range(40):
        await put(regions, NAMES[number % 3], str(number))
        await trio.sleep(0.02)
    regions.heal()
    await regions.settled()
    assert len(await equal(regions)) == 40


async def test_a_clock_that_is_ahead_wins(regions: Regions) -> None:
    regions.skew(US, 20)
    assert regions.status()[US].clock_skew_seconds == 20.0
    await put(regions, US, "same", by="the future")
    regions.partition(US, EU)
    regions.skew(US, 0)
    await put(regions, EU, "same", by="now")
    regions.heal()
    await regions.settled()
    assert len(await equal(regions)) == 1


async def test_replicas_come_and_go(regions: Regions) -> None:
    us = regions[US]
    await put(regions, US, "kept")
    await regions.settled()
    await us.remove_replica("orders", EU)
    assert regions[EU].table_names() == []
    await regions[AP].disassociate("orders")
    assert await items(regions, AP) == [{"id": "kept"}]
    with trio.fail_after(10):
        while await us.replicas("orders"):  # noqa: ASYNC110 - there is no event
            await trio.sleep(0.01)
    await us.add_replica("orders", EU)
    assert await items(regions, EU) == [{"id": "kept"}]
    with pytest.raises(InvalidRequest, match="has a table of that name already"):
        await us.add_replica("orders", AP)
    with pytest.raises(InvalidRequest):
        await us.add_replica("orders", "mars-1")
    with pytest.raises(ResourceNotFound):
        await us.add_replica("nothing", EU)


async def test_who_has_replicas_already_is_passed_over() -> None:
    async with open_regions(dict.fromkeys(NAMES)) as regions:
        await regions[EU].create_table("orders", partition_key="id")
        await regions.replicate("orders", [US])
        assert regions[AP].table_names() == []
        await regions.replicate("orders", [US, EU])
        await regions.replicate("orders")
        assert await regions[EU].replicas("orders") == {AP: "ACTIVE", US: "ACTIVE"}
        with pytest.raises(ResourceNotFound, match="No region has a table nothing"):
            await regions.replicate("nothing")
        with pytest.raises(InvalidRequest, match="mars-1 is not open"):
            await regions.replicate("orders", ["mars-1"])


async def test_triggers_run_in_the_region_that_has_them() -> None:
    seen: list[str] = []
    triggers = Triggers()

    @triggers.on_change("orders")
    async def note(event: Any, context: Any) -> None:
        seen.extend(change.key["id"] for change in millstream.changes_of(event))

    async with open_regions({US: None, EU: None}, triggers={EU: triggers}) as regions:
        await regions[US].create_table("orders", partition_key="id")
        await regions.replicate("orders")
        await put(regions, US, "a")
        await regions.settled()
        await regions[EU].drain()
        assert seen == ["a"]


def test_what_drills_cannot_be_told() -> None:
    async def main() -> None:
        async with open_regions({US: None, EU: None}) as regions:
            for wrong in (regions.partition, regions.heal, regions.pause, regions.resume):
                with pytest.raises(InvalidRequest, match="mars-1 is not open; us-east-1, eu-west"):
                    wrong(US, "mars-1")
            with pytest.raises(InvalidRequest, match="itself"):
                regions.partition(US, US)
            with pytest.raises(InvalidRequest, match="or all of them"):
                regions.heal(US)
            with pytest.raises(ValueError, match="probability"):
                regions.drop(US, EU, 2.0)
            with pytest.raises(ValueError, match="latency"):
                regions.delay(US, EU, -1.0)
            assert regions.status()[US].faults == regions.status()[EU].faults == {}
            with pytest.raises(InvalidRequest, match="86400"):
                regions.skew(US, 1e6)
            with pytest.raises(InvalidRequest, match="not open"):
                regions.skew("mars-1", 1)
            with pytest.raises(KeyError):
                _ = regions["mars-1"]

    trio.run(main)


async def test_a_start_and_an_end_complain_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with open_regions(dict.fromkeys(NAMES)) as regions:
        await regions[US].create_table("orders", partition_key="id")
        await regions.replicate("orders")
    assert [record.getMessage() for record in caplog.records] == []


# Numbers.


async def numbers(places: dict[str, Path | None]) -> dict[str, int]:
    async with open_regions(places) as regions:
        return {name: status.number for name, status in regions.status().items()}


async def test_numbers_stay_whoever_is_opened_in_whatever_order(tmp_path: Path) -> None:
    us, eu, ap = (tmp_path / name for name in NAMES)
    assert await numbers({US: us, EU: eu}) == {EU: 1, US: 2}
    assert await numbers({AP: ap, US: us}) == {US: 2, AP: 3}
    assert await numbers({AP: ap, EU: eu, US: us}) == {EU: 1, US: 2, AP: 3}
    # One that was not there when a number was given does not give it again.
    assert await numbers({EU: eu, "mars-1": None}) == {EU: 1, "mars-1": 4}
    assert await numbers({EU: eu, "moon-1": None}) == {EU: 1, "moon-1": 5}
    assert (eu / "regions.toml").read_text() == (
        "# Numbers of regions, by which the data name them. They stay.\n\n"
        "[regions.eu-west-1]\nnumber = 1\n\n[regions.us-east-1]\nnumber = 2\n\n"
        "[regions.ap-southeast-1]\nnumber = 3\n\n[regions.mars-1]\nnumber = 4\n\n"
        "[regions.moon-1]\nnumber = 5\n"
    )


async def test_what_is_stored_is_there_again_and_goes_on(tmp_path: Path) -> None:
    places = {US: tmp_path / "us", EU: tmp_path / "eu"}
    async with open_regions(places) as regions:
        await regions[US].create_table("orders", partition_key="id")
        await regions.replicate("orders")
        regions.partition(US, EU)
        await put(regions, US, "a")
        await put(regions, EU, "b")
    more = {AP: tmp_path / "ap", **dict(reversed(places.items()))}
    async with open_regions(more) as regions:
        await regions.settled()
        assert regions[AP].table_names() == []
        await regions.replicate("orders")
        assert await equal(regions) == [{"id": "a"}, {"id": "b"}]


async def test_a_database_of_its_own_becomes_a_region(tmp_path: Path) -> None:
    async with millstream.open_database(tmp_path / "us", region=US) as db:
        await (await db.create_table("orders", partition_key="id")).put({"id": "old"})
    async with open_regions({US: tmp_path / "us", EU: tmp_path / "eu"}) as regions:
        await regions.replicate("orders")
        assert await equal(regions) == [{"id": "old"}]


async def test_a_region_in_memory_begins_with_nothing(tmp_path: Path) -> None:
    places = {US: tmp_path / "us", EU: None}
    for _ in range(2):
        async with open_regions(places) as regions:
            if not regions[US].table_names():
                await regions[US].create_table("orders", partition_key="id")
            assert regions[EU].table_names() == []
            await regions.settled()
            await regions.replicate("orders")
            await put(regions, EU, "kept where there is a disk")
            await regions.settled()
            assert len(await equal(regions)) == 1


async def test_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    async def refused(places: dict[str, Any], **more: Any) -> str:
        with pytest.raises(ConfigurationError) as caught:
            async with open_regions(places, **more):
                pass
        return str(caught.value)

    assert "none is named" in await refused({})
    assert "at most 32" in await refused({f"r-{number}": None for number in range(33)})
    assert "'US' must look like us-east-1" in await refused({"US": None})
    same = {US: tmp_path / "a", EU: tmp_path / "b" / ".." / "a"}
    assert "the same directory" in await refused(same)
    assert "triggers for mars-1" in await refused({US: None}, triggers={"mars-1": ()})
    assert not (tmp_path / "us").exists() and not (tmp_path / "eu").exists()

    async with open_regions({US: tmp_path / "us"}), open_regions({EU: tmp_path / "eu"}):
        pass
    both = {US: tmp_path / "us", EU: tmp_path / "eu"}
    assert "were opened with different regions" in await refused(both)
    async with open_regions({EU: None, US: tmp_path / "other"}):
        pass
    assert "knows us-east-1 as number 2" in await refused({**both, EU: tmp_path / "other"})
    assert "this data is that of us-east-1" in await refused({EU: tmp_path / "us"})
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "us" / "regions.toml").write_text("number = 1")
    assert "is not what open_regions writes" in await refused({US: tmp_path / "us"})
