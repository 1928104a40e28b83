"""What is LMDB's own: formats, damage, the map's size, threads, copies."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest

from millstream.errors import Corrupt, StorageError, WrongFormat
from millstream.storage.check import check_tree
from millstream.storage.tree import lmdb_store
from millstream.storage.tree.lmdb_store import LmdbStore, open_lmdb

PAGE_BYTES = 4096


def made(path: Path, rows: int = 200, value_bytes: int = 300) -> str:
    """A closed store with rows of all kinds; its path."""
    store = open_lmdb(f"{path}/t", create=True)
    keys = sorted([b"%06d" % i for i in range(rows)] + [b"k" * 700, b"k" * 1500])
    store.write({1: [(key, key[-2:] * (value_bytes // 2)) for key in keys]}, {b"lsn": b"17"})
    store.write({1: [(b"big", b"b" * 20_000)]}, {})
    store.close()
    return f"{path}/t"


def everything(store: LmdbStore) -> list[tuple[bytes, bytes]]:
    return list(store.range(1, b"", None)) + store.meta_range(b"")


def patch(path: str, offset: int, data: bytes) -> None:
    with Path(path, "data.mdb").open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    path = made(tmp_path)
    store = open_lmdb(path)
    assert len(everything(store)) == 204
    assert store.meta_get(b"lsn") == b"17"
    store.close()


def test_syncs_are_never_switched_off(tmp_path: Path) -> None:
    store = open_lmdb(f"{tmp_path}/t", create=True)
    flags = store._environment.flags()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["writemap"]
    store.close()


def test_an_absent_or_empty_store_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="missing"):
        open_lmdb(f"{tmp_path}/t")
    path = made(tmp_path)
    os.truncate(f"{path}/data.mdb", 0)
    with pytest.raises(Corrupt):
        open_lmdb(path)
    open_lmdb(path, create=True).close()


def test_a_store_whose_creation_was_cut_short_is_created(tmp_path: Path) -> None:
    os.mkdir(f"{tmp_path}/t")
    lmdb.open(f"{tmp_path}/t").close()
    with pytest.raises(Corrupt, match="empty"):
        open_lmdb(f"{tmp_path}/t")
    open_lmdb(f"{tmp_path}/t", create=True).close()
    open_lmdb(f"{tmp_path}/t").close()


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    """Were a cut file let in, touching its lost pages would kill the test process by SIGBUS."""
    path = made(tmp_path)
    whole = Path(path, "data.mdb").read_bytes()
    store = open_lmdb(path)
    expected = everything(store)
    store.close()
    refused = 0
    for pages in range(1, len(whole) // PAGE_BYTES):
        Path(path, "data.mdb").write_bytes(whole[: pages * PAGE_BYTES + 7])
        try:
            store = open_lmdb(path)
        except Corrupt:
            refused += 1
            continue
        assert everything(store) == expected
        store.close()
    assert refused > len(whole) // PAGE_BYTES // 2


def short_file(path: Path) -> tuple[str, int]:
    """A healthy store whose file ends before its last page, which is free; and its rows."""
    for seed in range(40):
        rng = random.Random(seed)
        store = open_lmdb(f"{path}/{seed}", create=True)
        for _ in range(6):
            low = rng.randrange(300)
            keys = [b"%06d" % i for i in range(low, min(300, low + rng.choice([5, 50, 300])))]
            put = rng.random() < 0.5
            values = [bytes(rng.randrange(900)) if put else None for _ in keys]
            store.write({1: list(zip(keys, values, strict=True))}, {})
            store.renew()
            if store.statistics().file_bytes > os.path.getsize(f"{path}/{seed}/data.mdb"):
                rows = len(everything(store))
                store.close()
                return f"{path}/{seed}", rows
        store.close()
    raise AssertionError("LMDB now writes pages that it gave back: the free list need not be read")


def test_a_healthy_file_that_ends_in_unwritten_free_pages_is_opened(tmp_path: Path) -> None:
    """One state in a hundred is like that; refusing it would refuse a healthy database."""
    path, rows = short_file(tmp_path)
    store = open_lmdb(path)
    assert len(everything(store)) == rows
    store.close()
    size_bytes = os.path.getsize(f"{path}/data.mdb")
    os.truncate(f"{path}/data.mdb", size_bytes - 10 * PAGE_BYTES)
    with pytest.raises(Corrupt, match="cut"):
        open_lmdb(path)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (16, b"\x00"),  # The magic number.
        (10, b"\x00"),  # The page's flags.
        (40, b"\x01"),  # The page size.
        (128, b"\xff" * 7 + b"\x00"),  # The root of the rows.
        (136, b"\xff" * 7 + b"\x00"),  # The last page.
    ],
    ids=["magic", "flags", "page size", "root", "last page"],
)
@pytest.mark.parametrize("page", [0, 1])
def test_a_bad_meta_page_is_corrupt(tmp_path: Path, page: int, offset: int, data: bytes) -> None:
    path = made(tmp_path)
    if offset == 136:  # Of the older state it would not matter.
        patch(path, 136, data)
        page = 1
    patch(path, page * PAGE_BYTES + offset, data)
    with pytest.raises(Corrupt):
        open_lmdb(path)


def test_another_lmdb_format_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    patch(path, 20, (999).to_bytes(4, sys.byteorder))
    with pytest.raises(WrongFormat):
        open_lmdb(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    with lmdb.open(path) as environment, environment.begin(write=True) as txn:
        txn.put(lmdb_store._FORMAT_ROW, b"millstream tree 2")
    with pytest.raises(WrongFormat, match="format 2"):
        open_lmdb(path)


@pytest.mark.parametrize("text", [None, b"", b"millstream tree ", b"millstream tree x"])
def test_a_foreign_lmdb_file_is_refused(tmp_path: Path, text: bytes | None) -> None:
    os.mkdir(f"{tmp_path}/t")
    with lmdb.open(f"{tmp_path}/t") as environment, environment.begin(write=True) as txn:
        txn.put(b"somebody", b"else")
        if text is not None:
            txn.put(lmdb_store._FORMAT_ROW, text)
    with pytest.raises(WrongFormat):
        open_lmdb(f"{tmp_path}/t", create=True)


def test_a_file_that_is_not_lmdb_is_corrupt(tmp_path: Path) -> None:
    os.mkdir(f"{tmp_path}/t")
    Path(tmp_path, "t", "data.mdb").write_bytes(b"not a database\n" * 1000)
    with pytest.raises(Corrupt):
        open_lmdb(f"{tmp_path}/t", create=True)


def test_a_full_map_grows_at_renew_and_the_write_succeeds_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "TREE_MAP_BYTES", 1 << 20)
    store = open_lmdb(f"{tmp_path}/t", create=True)
    store.write({1: [(b"a", b"1")]}, {})
    store.renew()
    snapshot = store.snapshot()
    changes = {1: [(b"a", b"2"), (b"b", bytes(3 << 20))]}
    for _ in range(2):
        with pytest.raises(StorageError):
            store.write(changes, {b"lsn": b"1"})
        store.renew()  # Cannot grow: the snapshot would be cut off.
        assert store.get(1, b"a") == b"1"
        assert store.meta_get(b"lsn") is None
    assert snapshot.get(1, b"a") == b"1"
    snapshot.close()
    store.renew()  # To 2 MB, which is not enough yet.
    with pytest.raises(StorageError):
        store.write(changes, {b"lsn": b"1"})
    store.renew()
    store.write(changes, {b"lsn": b"1"})
    store.renew()
    assert store.get(1, b"b") == bytes(3 << 20)
    assert store.meta_get(b"lsn") == b"1"
    store.close()


def test_where_the_address_space_is_small_the_map_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "TREE_MAP_BYTES", 1 << 50)
    store = open_lmdb(f"{tmp_path}/t", create=True)
    assert lmdb_store.TREE_MAP_BYTES_MIN <= store.statistics().map_bytes < 1 << 50
    store.close()


def test_a_copy_is_whole_and_durable_on_its_own(tmp_path: Path) -> None:
    store = open_lmdb(made(tmp_path))
    store.copy_to(f"{tmp_path}/copy")
    copied = open_lmdb(f"{tmp_path}/copy")
    assert everything(copied) == everything(store)
    assert list(copied.structure(1)) == []
    copied.close()
    with pytest.raises(StorageError):
        store.copy_to(f"{tmp_path}/copy")
    store.close()


def test_reads_go_on_beside_a_writing_thread(tmp_path: Path) -> None:
    """The reader sees only whole states, and the same one until it renews."""
    store = open_lmdb(f"{tmp_path}/t", create=True)
    keys = [b"%04d" % i for i in range(200)]

    def write() -> None:
        for step in range(12):
            store.write({1: [(key, b"%d" % step) for key in keys]}, {b"step": b"%d" % step})

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        seen = {value for _, value in store.range(1, b"", None)}
        assert len(seen) <= 1
        assert seen == {step for step in [store.meta_get(b"step")] if step is not None}
        store.renew()
    thread.join()
    store.renew()
    assert store.meta_get(b"step") == b"11"
    store.close()


def test_another_process_reads_beside_us(tmp_path: Path) -> None:
    """As a scrub does."""
    store = open_lmdb(made(tmp_path))
    script = (
        "import sys; from millstream.storage.tree.lmdb_store import open_lmdb;"
        "store = open_lmdb(sys.argv[1], read_only=True);"
        "print(len(list(store.range(1, b'', None))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, f"{tmp_path}/t"], capture_output=True, text=True, check=True
    )
    assert found.stdout == "203\n"
    store.close()


def test_a_killed_reader_in_another_process_holds_no_pages(tmp_path: Path) -> None:
    """Its slot is cleared by the next write; else the file would grow from then on."""
    store = open_lmdb(made(tmp_path))
    script = (
        "import os, sys; from millstream.storage.tree.lmdb_store import open_lmdb;"
        "store = open_lmdb(sys.argv[1], read_only=True);"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, f"{tmp_path}/t"], check=True)
    pids = {line.split()[0] for line in store._environment.readers().splitlines()[1:]}
    assert pids - {str(os.getpid())}
    store.write({1: [(b"a", b"")]}, {})
    pids = {line.split()[0] for line in store._environment.readers().splitlines()[1:]}
    assert pids == {str(os.getpid())}
    store.close()


def test_a_read_only_store_refuses_to_write(tmp_path: Path) -> None:
    store = open_lmdb(made(tmp_path), read_only=True)
    with pytest.raises(StorageError):
        store.write({1: [(b"a", b"")]}, {})
    store.close()


def test_a_loop_of_damaged_layer_pointers_ends(tmp_path: Path) -> None:
    path = made(tmp_path)
    pointer = (1).to_bytes(4, "big") + bytes(8) + b"k" * 480 + b"\x01"
    with lmdb.open(path) as environment, environment.begin(write=True) as txn:
        assert txn.get(pointer) is not None
        txn.put(pointer, bytes(8))
    store = open_lmdb(path)
    with pytest.raises(Corrupt):
        list(store.range(1, b"", None))
    with pytest.raises(Corrupt):
        store.get(1, b"k" * 700)
    with pytest.raises(Corrupt):
        store.write({1: [(b"k" * 700, None)]}, {})
    store.close()


def test_a_damaged_page_is_corrupt_for_every_read_from_then_on(tmp_path: Path) -> None:
    """LMDB reports this kind of damage. Of others it dies, hence a scrub has its own process."""
    path = made(tmp_path)
    whole = Path(path, "data.mdb").read_bytes()
    for start in range(2 * PAGE_BYTES, len(whole), PAGE_BYTES):
        page = whole[start : start + PAGE_BYTES]
        if page[10] == 2 and b"millstream tree" not in page:  # A leaf.
            patch(path, start + 10, b"\x00")
    store = open_lmdb(path)
    for _ in range(2):
        with pytest.raises(Corrupt):
            store.get(1, b"000150")
    with pytest.raises(Corrupt):
        list(store.range(1, b"", None))
    with pytest.raises(Corrupt):
        list(store.structure(1))
    report = check_tree(store, 1, [(b"", None)], lambda key, value: (0, 0))
    assert not report.is_sound
    assert not report.complete
    store.close()


GOLDEN = Path(__file__).parents[2] / "testdata" / "golden" / "tree"
GOLDEN_ROWS = {
    3: [
        (b"", b"the empty key"),
        (b"a", b""),
        (b"a" * 479, b"479"),
        (b"a" * 480, b"480"),
        (b"a" * 481, b"481"),
        (b"a" * 960, b"960"),
        (b"a" * 3072, b"3072"),
        (b"b", b"b" * 5000),
    ],
    70_000: [(b"\xff", b"\x00")],
}
GOLDEN_META = {b"applied/1": b"17", b"applied/2": b"18"}


@pytest.mark.skipif(sys.byteorder != "little", reason="LMDB's files are of one byte order")
@pytest.mark.parametrize("version", range(1, lmdb_store.FORMAT_VERSION + 1))
def test_the_golden_file_of_every_format_stays_readable(tmp_path: Path, version: int) -> None:
    """Made once by ``write_golden``; a file of a released format is never made again."""
    shutil.copytree(GOLDEN / f"v{version}", tmp_path / "t")
    store = open_lmdb(f"{tmp_path}/t")
    assert store.trees() == sorted(GOLDEN_ROWS)
    assert store.dropping() == [9]
    for tree, rows in GOLDEN_ROWS.items():
        assert list(store.range(tree, b"", None)) == rows
        assert list(store.range(tree, b"", None, True)) == rows[::-1]
        assert all(store.get(tree, key) == value for key, value in rows)
        assert list(store.structure(tree)) == []
    assert store.meta_range(b"") == sorted(GOLDEN_META.items())
    store.write({3: [(b"a" * 3072, None)]}, {})
    store.renew()
    assert list(store.structure(3)) == []
    store.close()


def write_golden(directory: Path) -> None:
    """Writes ``data.mdb`` of the present format to the new ``directory``."""
    store = open_lmdb(str(directory), create=True)
    store.write({9: [(b"doomed", b"")]}, {})
    store.write(GOLDEN_ROWS, GOLDEN_META, dropped=[9])
    store.close()
    (directory / "lock.mdb").unlink()
