"""The store of functions: what is durable, what is removed, which code an invocation runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from millstream.actors import functions as module
from millstream.actors.catalog import Catalog
from millstream.actors.data_directory import open_node
from millstream.actors.function_handlers import function_handler
from millstream.actors.functions import Functions, open_functions
from millstream.actors.node import NodeSettings
from millstream.errors import (
    ConditionFailed,
    Corrupt,
    InvalidRequest,
    LimitExceeded,
    OutcomeUnknown,
    ResourceInUse,
    ResourceNotFound,
    Throttled,
    Unavailable,
)
from millstream.host.host import real_host
from millstream.lambdas.packages import code_digest
from millstream.lambdas.results import Failed, Invocation, Returned
from millstream.limits import EVENTS_WAITING_MAX, INVOCATIONS_MAX, INVOKERS_MAX
from millstream.tests.lambdas.fakes import FIELDS, FakeEntries, Invokers, package

A = package()
B = package("def handler(event, context):\n    return 'b'\n")


@asynccontextmanager
async def store(
    directory: Path | None, entries: FakeEntries | None = None, invokers: Invokers | None = None
) -> AsyncIterator[Functions]:
    async with open_functions(
        real_host(),
        None if directory is None else str(directory),
        entries or FakeEntries(),
        invokers or Invokers(),
        region="us-east-1",
        account="123456789012",
    ) as functions:
        yield functions


def zips(directory: Path) -> list[str]:
    return sorted(each for each in os.listdir(directory / "functions") if each != "unpacked")


def unpacked(directory: Path) -> list[str]:
    path = directory / "functions" / "unpacked"
    return sorted(os.listdir(path)) if path.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    """Files are removed in threads, behind an answer."""
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_function_is_there_after_a_restart(tmp_path):
    entries = FakeEntries()
    async with store(tmp_path, entries) as functions:
        made = await functions.create("ns", "f", FIELDS | {"timeout_seconds": 7}, A)
        assert made.arn == "arn:aws:lambda:us-east-1:123456789012:function:f"
        assert (made.code_sha256, made.code_size) == (code_digest(A), len(A))
        assert made.revision_id and made.last_modified_ms > 0
        assert functions.find("ns", "f") == made
        assert functions.find("other", "f") is None
    async with store(tmp_path, entries) as functions:
        assert functions.get("ns", "f") == made
        assert await functions.invoke("ns", "f", [1]) == Returned({"event": [1]}, _start(functions))


def _start(functions: Functions) -> str:
    (live,) = functions._live.values()
    request_id = live.invoker.invocations[-1][1].request_id
    return f"START RequestId: {request_id}\n"


async def test_code_is_written_before_the_definition(tmp_path):
    class Watching(FakeEntries):
        async def save_entry(self, kind: str, name: str, data: bytes) -> None:
            assert len(zips(tmp_path)) == 1
            await super().save_entry(kind, name, data)

    entries = Watching()
    async with store(tmp_path, entries) as functions:
        await functions.create("ns", "f", FIELDS, A)
    assert len(entries.rows) == 1


async def test_name_is_taken_once_in_a_namespace(tmp_path):
    async with store(tmp_path) as functions:
        await functions.create("ns", "f", FIELDS, A)
        with pytest.raises(ResourceInUse, match="^Function already exist: f$"):
            await functions.create("ns", "f", FIELDS, B)
        await functions.create("other", "f", FIELDS, B)
        await functions.create("ns", "e", FIELDS, A)
        assert [each.name for each in functions.list("ns")] == ["e", "f"]


async def test_bad_package_changes_nothing(tmp_path):
    async with store(tmp_path) as functions:
        with pytest.raises(InvalidRequest):
            await functions.create("ns", "f", FIELDS, b"no zip")
        assert functions.list("ns") == [] and zips(tmp_path) == []
        made = await functions.create("ns", "f", FIELDS, A)
        with pytest.raises(InvalidRequest):
            await functions.update_code("ns", "f", b"no zip")
        assert functions.get("ns", "f") == made


async def test_new_code_is_what_runs_next_and_the_old_is_removed(tmp_path):
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        before = await functions.create("ns", "f", FIELDS, A)
        await functions.invoke("ns", "f", 1)
        after = await functions.update_code("ns", "f", B, fields={"architectures": ("arm64",)})
        assert after.revision_id != before.revision_id
        assert after.architectures == ("arm64",)
        answer = await functions.invoke("ns", "f", 1)
        assert isinstance(answer, Returned) and answer.payload == "b"
        await until(lambda: len(zips(tmp_path)) == len(unpacked(tmp_path)) == 1)
        assert [each.closed for each in invokers.made] == [1, 0]


async def test_invocation_ends_on_the_code_that_it_began_with(tmp_path):
    invokers = Invokers()
    invokers.gate = trio.Event()
    async with store(tmp_path, invokers=invokers) as functions:
        await functions.create("ns", "f", FIELDS, A)
        answers = []

        async def invoke() -> None:
            answers.append(await functions.invoke("ns", "f", 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(invoke)
            while not invokers.made or not invokers.made[0].invocations:
                await trio.lowlevel.checkpoint()
            await functions.update_code("ns", "f", B)
            await functions.delete("ns", "f")
            await trio.testing.wait_all_tasks_blocked()
            assert invokers.made[0].closed == 0
            assert len(zips(tmp_path)) == len(unpacked(tmp_path)) == 1
            invokers.gate.set()
        assert answers[0].payload == {"event": 1}
        await until(lambda: zips(tmp_path) == unpacked(tmp_path) == [])
        assert invokers.made[0].closed == 1


async def test_settings_change_without_the_code(tmp_path):
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        before = await functions.create("ns", "f", FIELDS, A)
        await functions.invoke("ns", "f", 1)
        after = await functions.update_configuration("ns", "f", {"timeout_seconds": 9})
        assert (after.timeout_seconds, after.code_sha256) == (9, before.code_sha256)
        await functions.invoke("ns", "f", 1)
        await until(lambda: invokers.made[0].closed == 1)
        assert [each.function.timeout_seconds for each in invokers.made] == [3, 9]
        assert invokers.made[1].invocations[0][1].timeout_seconds == 9
        assert len(zips(tmp_path)) == len(unpacked(tmp_path)) == 1


async def test_revision_must_be_the_latest_where_one_is_named(tmp_path):
    async with store(tmp_path) as functions:
        first = await functions.create("ns", "f", FIELDS, A)
        second = await functions.update_configuration(
            "ns", "f", {"timeout_seconds": 4}, revision_id=first.revision_id
        )
        with pytest.raises(ConditionFailed):
            await functions.update_configuration(
                "ns", "f", {"timeout_seconds": 5}, revision_id=first.revision_id
            )
        with pytest.raises(ConditionFailed):
            await functions.update_code("ns", "f", B, revision_id=first.revision_id)
        assert functions.get("ns", "f") == second


async def test_dry_run_changes_nothing(tmp_path):
    async with store(tmp_path) as functions:
        made = await functions.create("ns", "f", FIELDS, A)
        would = await functions.update_code("ns", "f", B, dry_run=True)
        assert would.code_sha256 == code_digest(B)
        assert functions.get("ns", "f") == made
        assert len(zips(tmp_path)) == 1


async def test_code_that_others_share_stays(tmp_path):
    async with store(tmp_path) as functions:
        await functions.create("ns", "f", FIELDS, A)
        await functions.create("other", "g", FIELDS, A)
        assert len(zips(tmp_path)) == 1
        await functions.delete("ns", "f")
        assert len(zips(tmp_path)) == 1
        await functions.invoke("other", "g", 1)
        await functions.delete("other", "g")
        await until(lambda: zips(tmp_path) == [])


async def test_deleted_function_is_gone(tmp_path):
    entries = FakeEntries()
    async with store(tmp_path, entries) as functions:
        await functions.create("ns", "f", FIELDS, A)
        await functions.delete("ns", "f")
        for call in (
            functions.invoke("ns", "f", 1),
            functions.delete("ns", "f"),
            functions.update_configuration("ns", "f", {}),
            functions.update_code("ns", "f", A),
        ):
            with pytest.raises(ResourceNotFound, match="^Function not found: arn:aws:lambda:us"):
                await call
        with pytest.raises(ResourceNotFound):
            functions.invoke_later("ns", "f", b"1")
    assert entries.rows == {}


async def test_orphans_are_removed_on_opening(tmp_path):
    entries = FakeEntries()
    async with store(tmp_path, entries) as functions:
        await functions.create("ns", "f", FIELDS, A)
    wanted = zips(tmp_path)
    (tmp_path / "functions" / f"{'0' * 64}.zip").write_bytes(b"orphan")
    (tmp_path / "functions" / f"{'0' * 64}.zip.new").write_bytes(b"half an orphan")
    stale = tmp_path / "functions" / "unpacked" / "stale"
    stale.mkdir(parents=True)
    async with store(tmp_path, entries):
        assert zips(tmp_path) == wanted
        assert unpacked(tmp_path) == []


async def test_damaged_code_is_not_run(tmp_path):
    entries, invokers = FakeEntries(), Invokers()
    async with store(tmp_path, entries) as functions:
        await functions.create("ns", "f", FIELDS, A)
    (name,) = zips(tmp_path)
    (tmp_path / "functions" / name).write_bytes(B)
    async with store(tmp_path, entries, invokers) as functions:
        with pytest.raises(Corrupt, match="not what was stored"):
            await functions.invoke("ns", "f", 1)
        # The same code, sent again, heals it.
        await functions.update_code("ns", "f", A)
        assert isinstance(await functions.invoke("ns", "f", 1), Returned)
    (tmp_path / "functions" / name).unlink()
    async with store(tmp_path, entries) as functions:
        with pytest.raises(Corrupt, match="gone"):
            await functions.invoke("ns", "f", 1)


async def test_code_of_a_definition_in_doubt_stays(tmp_path):
    entries = FakeEntries()
    async with store(tmp_path, entries) as functions:
        await functions.create("ns", "f", FIELDS, A)
        await functions.create("ns", "g", FIELDS, B)
        entries.error = OutcomeUnknown("?")
        with pytest.raises(OutcomeUnknown):
            await functions.update_code("ns", "f", B)
        entries.error = None
        await functions.delete("ns", "g")
        assert len(zips(tmp_path)) == 2
        assert functions.get("ns", "f").code_sha256 == code_digest(A)


async def test_in_memory_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    async with store(None) as functions:
        await functions.create("ns", "f", FIELDS, A)
        assert isinstance(await functions.invoke("ns", "f", 1), Returned)
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


async def test_context_is_told_what_the_function_is(tmp_path):
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        await functions.create("ns", "f", FIELDS | {"memory_mb": 256}, A)
        await functions.invoke("ns", "f", 1, request_id="r", trace_id="t", client_context="{}")
        ((_, invocation),) = invokers.made[0].invocations
    assert (invocation.request_id, invocation.trace_id) == ("r", "t")
    assert (invocation.function_name, invocation.version) == ("f", "$LATEST")
    assert (invocation.memory_limit_mb, invocation.client_context) == (256, "{}")
    assert invokers.made[0].closed == 1


async def test_who_does_not_wait_is_refused_when_all_places_are_taken(tmp_path):
    invokers = Invokers()
    invokers.gate = trio.Event()
    async with store(tmp_path, invokers=invokers) as functions:
        await functions.create("ns", "f", FIELDS, A)
        async with trio.open_nursery() as nursery:
            for _ in range(INVOCATIONS_MAX + 1):
                nursery.start_soon(functions.invoke, "ns", "f", 1)
            while not invokers.made or len(invokers.made[0].invocations) < INVOCATIONS_MAX:
                await trio.lowlevel.checkpoint()
            with pytest.raises(Throttled, match=r"Rate Exceeded\."):
                await functions.invoke("ns", "f", 1, wait=False)
            assert len(invokers.made) == 1
            invokers.gate.set()
        assert len(invokers.made[0].invocations) == INVOCATIONS_MAX + 1
        await functions.invoke("ns", "f", 1, wait=False)


async def test_idle_functions_do_not_keep_workers_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "INVOKERS_MAX", 2)
    assert INVOKERS_MAX > 2
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        for name in ("f", "g", "h"):
            await functions.create("ns", name, FIELDS, A)
        for name in ("f", "g", "f", "h"):
            await functions.invoke("ns", name, 1)
        await until(lambda: any(each.closed for each in invokers.made))
        closed = {each.function.name: each.closed for each in invokers.made}
        assert closed == {"f": 0, "g": 1, "h": 0}
        await functions.invoke("ns", "g", 1)
        assert len(invokers.made) == 4


async def test_there_is_a_greatest_number_of_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FUNCTIONS_MAX", 1)
    async with store(tmp_path) as functions:
        await functions.create("ns", "f", FIELDS, A)
        with pytest.raises(LimitExceeded):
            await functions.create("ns", "g", FIELDS, A)


FAILING = package("def handler(event, context):\n    raise KeyError(event)\n")


async def test_event_is_tried_three_times_and_given_up(tmp_path, autojump_clock, caplog):
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        await functions.create("ns", "f", FIELDS, FAILING)
        functions.invoke_later("ns", "f", b'{"secret": 1}', request_id="r")
        assert functions.events_waiting == 1
        # Its code is unpacked in a thread, which the clock knows nothing of.
        await until(lambda: bool(invokers.made and invokers.made[0].invocations))
        await trio.sleep(179)
        assert len(invokers.made[0].invocations) == 2
        await trio.sleep(2)
        assert functions.events_waiting == 0
        assert len(invokers.made[0].invocations) == 3
        assert {each.request_id for _, each in invokers.made[0].invocations} == {"r"}
        assert isinstance(await functions.invoke("ns", "f", "x"), Failed)
    assert "given up: KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_event_that_succeeds_runs_once(tmp_path, autojump_clock):
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        await functions.create("ns", "f", FIELDS, A)
        functions.invoke_later("ns", "f", b"[1]", trace_id="t")
        await until(lambda: not functions.events_waiting)
        ((event, invocation),) = invokers.made[0].invocations
        assert (event, invocation.trace_id) == ([1], "t")
        assert functions._event_bytes == 0


async def test_event_of_a_deleted_function_is_dropped(tmp_path, autojump_clock, caplog):
    async with store(tmp_path) as functions:
        await functions.create("ns", "f", FIELDS, FAILING)
        functions.invoke_later("ns", "f", b"1")
        await until(lambda: bool(functions._live) and not any(
            live.in_flight for live in functions._live.values()
        ))
        await functions.delete("ns", "f")
        await trio.sleep(61)
        assert functions.events_waiting == 0
    assert "given up: it was deleted" in caplog.text


async def test_events_that_wait_are_bounded(tmp_path, caplog):
    async with store(tmp_path) as functions:
        await functions.create("ns", "f", FIELDS, A)
        for _ in range(EVENTS_WAITING_MAX):
            functions.invoke_later("ns", "f", b"1")
        with pytest.raises(Throttled):
            functions.invoke_later("ns", "f", b"1")
    assert "1000 asynchronous invocations are lost" in caplog.text


async def test_bytes_of_events_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVENTS_WAITING_BYTES_MAX", 10)
    async with store(tmp_path) as functions:
        await functions.create("ns", "f", FIELDS, A)
        functions.invoke_later("ns", "f", b'"12345"')
        with pytest.raises(Throttled):
            functions.invoke_later("ns", "f", b'"12345"')


async def test_definitions_are_in_the_nodes_catalog(tmp_path):
    made = []
    for _ in range(2):
        async with open_node(str(tmp_path), NodeSettings(), log_engine="segments") as node:
            catalog = Catalog(node._catalog_actor)
            async with open_functions(
                node.host, str(tmp_path), catalog, Invokers(), region="us-east-1", account="1" * 12
            ) as functions:
                if not made:
                    made.append(await functions.create("ns", "f", FIELDS, A))
                    await functions.create("ns", "g", FIELDS, A)
                    await functions.delete("ns", "g")
                assert functions.list("ns") == made
                assert isinstance(await functions.invoke("ns", "f", 1), Returned)


async def test_mapping_calls_the_definition_of_the_moment(tmp_path):
    invokers = Invokers()
    async with store(tmp_path, invokers=invokers) as functions:
        assert function_handler(functions, "ns", "f") is None
        made = await functions.create("ns", "f", FIELDS, A)
        handler = function_handler(functions, "ns", "f")
        assert handler is not None
        assert (handler.name, handler.arn) == ("f", made.arn)
        assert (handler.timeout_seconds, handler.memory_limit_mb) == (3, 128)
        await functions.update_configuration("ns", "f", {"timeout_seconds": 8})
        given = Invocation("r", "f", made.arn, "$LATEST", 128, 3.0, "trace")
        result = await handler.invoker.invoke({"Records": []}, given)
        assert isinstance(result, Returned)
        ((event, invocation),) = invokers.made[0].invocations
        assert event == {"Records": []}
        assert (invocation.request_id, invocation.trace_id) == ("r", "trace")
        assert invocation.timeout_seconds == 8
        await functions.delete("ns", "f")
        with pytest.raises(Unavailable, match="Function not found"):
            await handler.invoker.invoke({}, given)
        await handler.invoker.close()
