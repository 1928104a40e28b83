"""Capacity units as documented and as measured on AWS, and how they are told."""

from __future__ import annotations

import pytest

from millstream.model.capacity import Consumption, index_write_units, read_units, write_units


@pytest.mark.parametrize(
    ("size_bytes", "units"), [(0, 1), (1, 1), (4096, 1), (4097, 2), (409_600, 100)]
)
def test_read_units(size_bytes: int, units: float) -> None:
    assert read_units(size_bytes, True) == units
    assert read_units(size_bytes, False) == units / 2
    assert read_units(size_bytes, True, transactional=True) == 2 * units


@pytest.mark.parametrize(
    ("size_bytes", "units"), [(0, 1), (1024, 1), (1025, 2), (3023, 3), (409_600, 400)]
)
def test_write_units(size_bytes: int, units: float) -> None:
    assert write_units(size_bytes) == units
    assert write_units(size_bytes, transactional=True) == 2 * units


# The labels are those of the capture on AWS that reference 2.6 cites.
@pytest.mark.parametrize(
    ("before", "after", "moved", "changed", "units"),
    [
        (None, None, False, False, 0),  # Never in the index.
        (None, 18, True, True, 1),  # Inserted.
        (18, None, True, True, 1),  # De-indexed.
        (3017, None, True, True, 3),  # S6, S7.
        (18, 18, False, False, 0),  # An unchanged overwrite: no arm.
        (18, 3020, False, True, 3),  # L1: grown in place.
        (1517, 1517, False, True, 2),  # R2: each image rounded, not their sum.
        (1517, 1517, True, True, 4),  # S4: a key move is a delete and an insert.
        (3017, 18, True, True, 4),  # S5.
    ],
)
def test_index_write_units(
    before: int | None, after: int | None, moved: bool, changed: bool, units: float
) -> None:
    assert index_write_units(before, after, moved=moved, changed=changed) == units


def test_total_tells_one_figure() -> None:
    consumption = Consumption()
    consumption.add_table(write=1.0)
    consumption.add_global_index("gsi", write=2.0)
    assert consumption.units == 3.0
    assert consumption.render("t", "TOTAL") == {"TableName": "t", "CapacityUnits": 3.0}


def test_indexes_tells_the_arms_that_were_touched() -> None:
    consumption = Consumption()
    consumption.add_table(write=1.0)
    consumption.add_local_index("lsi", write=1.0)
    consumption.add_global_index("gsi", write=2.0)
    consumption.add_global_index("untouched", write=0.0)
    assert consumption.render("t", "INDEXES") == {
        "TableName": "t",
        "CapacityUnits": 4.0,
        "Table": {"CapacityUnits": 1.0},
        "LocalSecondaryIndexes": {"lsi": {"CapacityUnits": 1.0}},
        "GlobalSecondaryIndexes": {"gsi": {"CapacityUnits": 2.0}},
    }


def test_a_read_of_an_index_leaves_the_table_at_zero() -> None:
    consumption = Consumption()
    consumption.add_global_index("gsi", read=0.5)
    assert consumption.render("t", "INDEXES") == {
        "TableName": "t",
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "GlobalSecondaryIndexes": {"gsi": {"CapacityUnits": 0.5}},
    }


def test_transactions_tell_reads_and_writes_apart() -> None:
    consumption = Consumption()
    consumption.add_table(write=2.0)
    consumption.add_local_index("lsi", write=1.0)
    assert consumption.render("t", "INDEXES", split=True) == {
        "TableName": "t",
        "CapacityUnits": 3.0,
        "WriteCapacityUnits": 3.0,
        "Table": {"CapacityUnits": 2.0, "WriteCapacityUnits": 2.0},
        "LocalSecondaryIndexes": {"lsi": {"CapacityUnits": 1.0, "WriteCapacityUnits": 1.0}},
    }
    reads = Consumption()
    reads.add_table(read=4.0)
    assert reads.render("t", "TOTAL", split=True) == {
        "TableName": "t",
        "CapacityUnits": 4.0,
        "ReadCapacityUnits": 4.0,
    }


def test_a_batch_adds_up() -> None:
    batch = Consumption()
    for _ in range(3):
        one = Consumption()
        one.add_table(write=1.0)
        one.add_local_index("lsi", write=1.0)
        one.add_global_index("gsi", write=2.0)
        batch.add(one)
    assert batch.units == 12.0
    assert batch.render("t", "INDEXES")["GlobalSecondaryIndexes"] == {"gsi": {"CapacityUnits": 6.0}}


def test_nothing_is_rendered_for_none() -> None:
    with pytest.raises(AssertionError):
        Consumption().render("t", "NONE")
