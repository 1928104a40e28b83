"""Invokers: on the loop, in a thread, and what the node does with workers, which are fakes here."""

import threading

import msgspec
import pytest
import trio
import trio.testing

from millstream.errors import ConfigurationError, InvalidRequest, TransactionConflict, Unavailable
from millstream.lambdas import protocol
from millstream.lambdas.context import current_trace
from millstream.lambdas.protocol import (
    PROTOCOL_VERSION,
    Answered,
    Ask,
    CodeDirectory,
    Frames,
    Hello,
    Invoke,
    Item,
    Load,
    Loaded,
    Raised,
    Refused,
    Write,
    encode,
    python_version,
)
from millstream.lambdas.results import Failed, Invocation, Returned
from millstream.lambdas.runtime import LoopInvoker, ThreadInvoker, WorkerInvoker
from millstream.limits import FUNCTION_INIT_SECONDS_MAX

INVOCATION = Invocation("id", "f", "arn:f", "$LATEST", 128, 3.0, "Root=1")
QUICK = msgspec.structs.replace(INVOCATION, timeout_seconds=0.03)
PROGRAM = CodeDirectory("/here", "a.b")
TIMED_OUT = Failed("Sandbox.Timedout", "id Task timed out after 3.00 seconds")


class RecordingTransaction:
    """A transaction that remembers what was asked of it."""

    def __init__(self):
        self.calls = []

    async def get(self, table, key):
        await trio.lowlevel.checkpoint()
        self.calls.append(("get", table, key))
        if key["id"] == "held":
            raise TransactionConflict("held by another")
        return {"id": key["id"], "n": 1} if key["id"] == "a" else None

    def put(self, table, item, **more):
        if not item:
            raise InvalidRequest("no key")
        self.calls.append(("put", table, item, more))

    def update(self, table, key, update, **more):
        self.calls.append(("update", table, key, update, more))

    def delete(self, table, key, **more):
        self.calls.append(("delete", table, key, more))

    def check(self, table, key, condition, **more):
        self.calls.append(("check", table, key, condition, more))


# On the loop.


async def test_a_coroutine_gets_event_and_context_and_its_answer_comes_back():
    transaction = RecordingTransaction()

    async def handler(event, context):
        assert context.transaction is transaction
        assert context.aws_request_id == "id"
        assert current_trace.get() == "Root=1"
        return {"n": event["n"] + 1}

    result = await LoopInvoker(handler).invoke({"n": 1}, INVOCATION, transaction)
    assert result == Returned({"n": 2})
    assert current_trace.get() == ""


async def test_an_exception_is_told_with_the_handlers_own_frames_only():
    def inner():
        raise ValueError("no good")

    async def handler(event, context):
        inner()

    result = await LoopInvoker(handler).invoke({}, INVOCATION)
    assert (result.error_type, result.message) == ("ValueError", "no good")
    assert [line.split(", in ")[1].split("\n")[0] for line in result.trace] == ["handler", "inner"]


async def test_a_coroutine_that_takes_too_long_is_cancelled(autojump_clock):
    started = trio.current_time()
    cancelled = []

    async def handler(event, context):
        assert context.get_remaining_time_in_millis() == 3000
        try:
            await trio.sleep(100)
        finally:
            cancelled.append(trio.current_time() - started)

    assert await LoopInvoker(handler).invoke({}, INVOCATION) == TIMED_OUT
    assert cancelled == [3]


async def test_the_callers_cancellation_passes_through(autojump_clock):
    async def handler(event, context):
        await trio.sleep_forever()

    for invoker in (LoopInvoker(handler), ThreadInvoker(lambda event, context: trio.run(never))):
        with trio.move_on_after(1) as scope:
            await invoker.invoke({}, msgspec.structs.replace(INVOCATION, timeout_seconds=100))
        assert scope.cancelled_caught


async def never():
    # An abandoned thread must end before the tests do, which is soon enough.
    await trio.sleep(0.01)


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_neither_an_exit_nor_an_answer_without_json_harms_the_node(kind):
    def leave(event, context):
        raise SystemExit(3)

    def odd(event, context):
        return {1, 2}

    def invoker(function):
        async def handler(event, context):
            return function(event, context)

        return LoopInvoker(handler) if kind == "loop" else ThreadInvoker(function)

    result = await invoker(leave).invoke({}, INVOCATION)
    assert result.error_type == "Runtime.ExitError"
    assert result.message == "RequestId: id Error: Runtime exited with error: exit status 3"
    assert (await invoker(odd).invoke({}, INVOCATION)).error_type == "Runtime.MarshalError"


# In a thread.


async def test_a_function_runs_in_a_thread_with_a_transaction_of_plain_calls():
    transaction = RecordingTransaction()
    loop = threading.get_ident()

    def handler(event, context):
        assert threading.get_ident() != loop
        assert current_trace.get() == "Root=1"
        assert 0 < context.get_remaining_time_in_millis() <= 3000
        tx = context.transaction
        with pytest.raises(InvalidRequest):
            tx.put("t", {})
        with pytest.raises(TransactionConflict):
            tx.get("t", {"id": "held"})
        tx.put("t", {"id": "b"}, condition="c")
        tx.update("t", {"id": "b"}, "SET n = :n", values={":n": 1})
        tx.delete("t", {"id": "c"})
        tx.check("t", {"id": "d"}, "e", names={"#a": "a"})
        return tx.get("t", {"id": "a"})

    result = await ThreadInvoker(handler).invoke({}, INVOCATION, transaction)
    assert result == Returned({"id": "a", "n": 1})
    assert transaction.calls == [
        ("get", "t", {"id": "held"}),
        ("put", "t", {"id": "b"}, {"condition": "c"}),
        ("update", "t", {"id": "b"}, "SET n = :n", {"values": {":n": 1}}),
        ("delete", "t", {"id": "c"}, {}),
        ("check", "t", {"id": "d"}, "e", {"names": {"#a": "a"}}),
        ("get", "t", {"id": "a"}),
    ]


async def test_a_thread_that_never_started_is_not_counted():
    invoker = ThreadInvoker(lambda event, context: event, threads=1)
    at_once = msgspec.structs.replace(INVOCATION, timeout_seconds=0)
    assert (await invoker.invoke(1, at_once)).error_type == "Sandbox.Timedout"
    with trio.fail_after(10):
        assert await invoker.invoke(1, INVOCATION) == Returned(1)


async def test_a_thread_that_takes_too_long_is_abandoned_and_counts_until_it_ends():
    go, ended = threading.Event(), threading.Event()
    transaction = RecordingTransaction()
    seen = []

    def handler(event, context):
        if event["slow"]:
            go.wait(10)
            try:
                context.transaction.put("t", {"id": 1})
            except Unavailable as error:
                seen.append(str(error))
            ended.set()
        return event["slow"]

    invoker = ThreadInvoker(handler, threads=1)
    result = await invoker.invoke({"slow": True}, QUICK, transaction)
    assert result.error_type == "Sandbox.Timedout"
    assert result.message.startswith("id Task timed out after 0.03 seconds")
    assert "goes on" in result.message
    async with trio.open_nursery() as nursery:
        results = []

        async def again():
            results.append(await invoker.invoke({"slow": False}, INVOCATION))

        nursery.start_soon(again)
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        go.set()
    assert results == [Returned(False)]
    assert ended.is_set()
    assert transaction.calls == []
    assert seen == ["The invocation has ended, and its transaction with it"]


# Worker processes, played by tasks.


class FakeChild:
    """A child whose program is an async function that receives and sends messages."""

    def __init__(self, pid):
        self.pid = pid
        self.to_child, self.inbox = trio.open_memory_channel(100)
        self.outbox, self.from_child = trio.open_memory_channel(100)
        self.exit = trio.Event()
        self.status = 0
        self.printed = bytearray()
        self.is_closed = False

    async def send(self, data):
        await trio.lowlevel.checkpoint()
        if self.exit.is_set():
            return False
        frames = Frames()
        frames.feed(data)
        self.to_child.send_nowait(frames.next())
        return True

    async def receive(self):
        try:
            return await self.from_child.receive()
        except trio.EndOfChannel:
            return b""

    async def wait_output(self):
        await self.exit.wait()

    def read_output(self):
        data, self.printed = bytes(self.printed), bytearray()
        return data or (None if self.exit.is_set() else b"")

    def is_running(self):
        return not self.exit.is_set()

    async def wait(self):
        await self.exit.wait()
        return self.status

    def end(self, status):
        if not self.exit.is_set():
            self.status = status
            self.exit.set()

    def kill(self):
        self.end(-9)

    def hang_up(self):
        self.outbox.close()

    def close(self):
        assert self.exit.is_set()
        assert not self.is_closed
        self.is_closed = True

    # The program's side.

    def say(self, message):
        if self.exit.is_set():
            return
        self.outbox.send_nowait(message if isinstance(message, bytes) else encode(message))

    async def hear(self, kind):
        message = await self.inbox.receive()
        assert isinstance(message, kind)
        return message

    async def greet(self):
        self.say(Hello(PROTOCOL_VERSION, python_version()))
        await self.hear(Load)
        self.say(Loaded())


class FakeProcesses:
    """Starts one program after the other; the last one again and again."""

    def __init__(self, nursery, *programs):
        self.nursery = nursery
        self.programs = list(programs)
        self.children = []
        self.seconds = 0

    async def start(self, module, environment, directory):
        # Not to be abandoned, as the real one is not.
        with trio.CancelScope(shield=True):
            await trio.sleep(self.seconds)
        assert (module, directory) == ("lambdas.worker", "/here")
        program = self.programs.pop(0) if len(self.programs) > 1 else self.programs[0]
        if program is None:
            raise OSError("no more processes")
        child = FakeChild(len(self.children) + 1)
        self.children.append(child)
        self.nursery.start_soon(program, child)
        return child


async def obedient(child):
    """Answers every invocation with the number of the process."""
    await child.greet()
    while True:
        invoke = await child.hear(Invoke)
        await trio.sleep(msgspec.json.decode(invoke.event).get("seconds", 0))
        child.say(Answered(str(child.pid).encode(), []))


@pytest.fixture
async def workers(nursery):
    """Makes invokers; at the end, no child of theirs is left and all have been closed."""
    made = []

    def make(*programs, program=PROGRAM, **more):
        processes = FakeProcesses(nursery, *programs)
        invoker = WorkerInvoker(
            nursery, processes, program, name="f", environment={}, directory="/here", **more,
        )  # fmt: skip
        made.append((invoker, processes))
        return invoker, processes

    yield make
    for invoker, processes in made:
        await invoker.close()
        assert all(child.is_closed for child in processes.children)


async def test_a_worker_is_kept_warm_and_ended_when_nobody_needs_it(workers, autojump_clock):
    invoker, processes = workers(obedient, idle_seconds=10)
    for _ in range(3):
        assert await invoker.invoke({}, INVOCATION) == Returned(1)
        await trio.sleep(9)
    assert len(processes.children) == 1
    # What it does is not idling, however long it takes.
    patient = msgspec.structs.replace(INVOCATION, timeout_seconds=100)
    assert await invoker.invoke({"seconds": 30}, patient) == Returned(1)
    await trio.sleep(11)
    assert processes.children[0].is_closed
    assert await invoker.invoke({}, INVOCATION) == Returned(2)


async def test_a_worker_whose_time_is_up_in_this_moment_is_not_used(workers, autojump_clock):
    invoker, _ = workers(obedient, idle_seconds=10)
    for number in range(1, 20):
        assert await invoker.invoke({}, INVOCATION) == Returned(number)
        autojump_clock.jump(10)


async def test_there_are_never_more_workers_than_allowed(workers, autojump_clock):
    invoker, processes = workers(obedient, concurrency=2)
    results = []

    async def invoke():
        results.append((await invoker.invoke({"seconds": 1}, INVOCATION)).payload)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(invoke)
    assert sorted(results) == [1, 1, 1, 2, 2, 2]
    assert trio.current_time() % 1 < 0.01
    assert len(processes.children) == 2


async def test_the_time_spent_waiting_for_a_worker_is_not_the_handlers(workers, autojump_clock):
    invoker, _ = workers(obedient)
    results = []

    async def invoke():
        results.append(await invoker.invoke({"seconds": 2}, INVOCATION))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(invoke)
    assert results == [Returned(1)] * 3


async def test_a_worker_that_takes_too_long_is_killed_and_replaced(workers, autojump_clock):
    invoker, processes = workers(obedient)
    assert await invoker.invoke({"seconds": 3.5}, INVOCATION) == TIMED_OUT
    assert processes.children[0].status == -9
    assert await invoker.invoke({"seconds": 2.5}, INVOCATION) == Returned(2)


async def test_a_caller_that_is_cancelled_leaves_no_busy_worker(workers, autojump_clock):
    invoker, processes = workers(obedient)
    with trio.move_on_after(1):
        await invoker.invoke({"seconds": 2}, INVOCATION)
    assert processes.children[0].status == -9
    assert await invoker.invoke({}, INVOCATION) == Returned(2)


@pytest.mark.parametrize(
    "status, how",
    [
        (3, "with error: exit status 3"),
        (-11, "with error: signal: segmentation fault"),
        (0, "without providing a reason"),
    ],
)
async def test_a_worker_that_dies_fails_its_invocation_and_no_other(workers, status, how):
    async def mortal(child):
        await child.greet()
        await child.hear(Invoke)
        child.printed += b"last words\n"
        child.end(status)

    invoker, _ = workers(mortal, obedient)
    result = await invoker.invoke({}, INVOCATION)
    message = f"RequestId: id Error: Runtime exited {how}"
    assert result == Failed("Runtime.ExitError", message, [], "last words\n")
    assert await invoker.invoke({}, INVOCATION) == Returned(2)


async def test_a_worker_that_dies_between_invocations_is_nobodys_failure(workers, autojump_clock):
    invoker, processes = workers(obedient)
    assert await invoker.invoke({}, INVOCATION) == Returned(1)
    processes.children[0].end(1)
    await trio.sleep(1)
    assert processes.children[0].is_closed
    for number in range(2, 20):
        assert await invoker.invoke({}, INVOCATION) == Returned(number)
        processes.children[-1].end(1)


async def test_a_worker_that_dies_with_its_answer_is_not_used_again(workers):
    async def last_breath(child):
        await child.greet()
        await child.hear(Invoke)
        child.say(Answered(str(child.pid).encode(), []))
        child.end(0)

    invoker, _ = workers(last_breath)
    for number in range(1, 20):
        assert await invoker.invoke({}, INVOCATION) == Returned(number)


async def test_running_out_of_memory_ends_the_worker(workers):
    async def hungry(child):
        await child.greet()
        await child.hear(Invoke)
        child.say(Raised("Runtime.OutOfMemory", "", []))

    invoker, processes = workers(hungry, obedient)
    result = await invoker.invoke({}, INVOCATION)
    assert result.error_type == "Runtime.OutOfMemory"
    assert "128 MB" in result.message
    assert processes.children[0].status == -9
    assert await invoker.invoke({}, INVOCATION) == Returned(2)


@pytest.mark.parametrize(
    "said", [b"\0\0\0\1\xc1", b"\xff\xff\xff\xff", Loaded(), Ask("t", b"{}"), Item(None)]
)
async def test_a_worker_that_does_not_make_sense_is_ended(workers, said):
    async def babbling(child):
        await child.greet()
        await child.hear(Invoke)
        child.say(said)

    invoker, processes = workers(babbling, obedient)
    result = await invoker.invoke({}, INVOCATION)
    assert result.error_type == "Runtime.ExitError"
    assert "does not make sense" in result.message
    assert processes.children[0].status == -9
    assert await invoker.invoke({}, INVOCATION) == Returned(2)


@pytest.mark.parametrize(
    "answered",
    [
        Answered(b"{", []),
        Answered(b"null", [Write("put", "t", b"{")]),
        Answered(b"null", [Write("put", "t", b'{"a":{"X":1}}')]),
        Answered(b"null", [Write("put", "t", b'{"a":{"S":[]}}')]),
        Answered(b"null", [Write("commit", "t", b"{}")]),
        Answered(b"null", [Write("put", "t", b"{}")]),
    ],
)
async def test_answers_that_nobody_can_use_are_failures(workers, answered):
    async def careless(child):
        await child.greet()
        await child.hear(Invoke)
        child.say(answered)

    invoker, _ = workers(careless)
    result = await invoker.invoke({}, INVOCATION, RecordingTransaction())
    assert isinstance(result, Failed)


async def test_questions_are_answered_and_writes_replayed(workers):
    answers = []

    async def asking(child):
        await child.greet()
        assert (await child.hear(Invoke)).has_transaction
        for key in (b'{"id":{"S":"a"}}', b'{"id":{"S":"b"}}'):
            child.say(Ask("t", key))
            answers.append((await child.hear(Item)).body)
        child.say(Ask("t", b'{"id":{"S":"held"}}'))
        answers.append(await child.hear(Refused))
        subject = b'{"id":{"S":"b"}}'
        child.say(
            Answered(
                b"null",
                [
                    Write("put", "t", b'{"id":{"S":"b"},"n":{"NS":["1","2.5"]}}', "", "c"),
                    Write("update", "t", subject, "SET n = :n", values=b'{":n":{"N":"1"}}'),
                    Write("delete", "t", subject),
                    Write("check", "t", subject, "", "e", {"#a": "a"}),
                ],
            )
        )

    transaction = RecordingTransaction()
    invoker, _ = workers(asking)
    assert await invoker.invoke({}, INVOCATION, transaction) == Returned(None)
    assert answers == [
        b'{"id":{"S":"a"},"n":{"N":"1"}}',
        None,
        Refused("TransactionConflict", "held by another"),
    ]
    kinds = [call[0] for call in transaction.calls]
    assert kinds == ["get", "get", "get", "put", "update", "delete", "check"]
    put, update, delete, check = transaction.calls[3:]
    none = {"condition": None, "names": None, "values": None}
    assert put[2]["n"] == {1, 2.5}
    assert put[3] == {**none, "condition": "c"}
    assert update[2:] == ({"id": "b"}, "SET n = :n", {**none, "values": {":n": 1}})
    assert delete[2:] == ({"id": "b"}, none)
    assert check[2:] == ({"id": "b"}, "e", {"names": {"#a": "a"}, "values": None})


async def test_a_worker_that_never_stops_printing_does_not_stop_the_node(workers):
    async def chatterbox(child):
        child.read_output = lambda: None if child.exit.is_set() else b"blah\n"
        await obedient(child)

    invoker, _ = workers(chatterbox)
    result = await invoker.invoke({}, INVOCATION)
    assert result.payload == 1
    assert result.log_tail.startswith("blah\n")


async def test_an_event_that_no_frame_holds_is_a_failure(workers, monkeypatch):
    monkeypatch.setattr(protocol, "WORKER_FRAME_BYTES_MAX", 1000)
    invoker, processes = workers(obedient)
    result = await invoker.invoke("x" * 1000, INVOCATION)
    assert result.error_type == "RequestEntityTooLargeException"
    assert processes.children == []
    with pytest.raises(ConfigurationError, match="f is too large"):
        workers(obedient, program=CodeDirectory("/here", "x" * 1000))


async def test_a_handler_that_cannot_be_loaded_fails_each_invocation(workers):
    async def broken(child):
        child.say(Hello(PROTOCOL_VERSION, python_version()))
        await child.hear(Load)
        child.printed += b"importing\n"
        child.say(Raised("Runtime.ImportModuleError", "No module named 'x'", []))

    invoker, processes = workers(broken)
    for _ in range(2):
        result = await invoker.invoke({}, INVOCATION)
        assert result == Failed(
            "Runtime.ImportModuleError", "No module named 'x'", [], "importing\n"
        )
    assert len(processes.children) == 2


async def test_loading_has_a_time_limit_of_its_own(workers, autojump_clock):
    async def slow(child):
        child.say(Hello(PROTOCOL_VERSION, python_version()))
        await child.hear(Load)
        await trio.sleep(FUNCTION_INIT_SECONDS_MAX - 1)
        child.say(Loaded())
        await child.hear(Invoke)
        child.say(Answered(b"1", []))

    async def stuck(child):
        await trio.sleep_forever()

    invoker, _ = workers(slow)
    assert await invoker.invoke({}, INVOCATION) == Returned(1)
    invoker, _ = workers(stuck)
    result = await invoker.invoke({}, INVOCATION)
    assert result == Failed("Sandbox.Timedout", "id Task timed out after 10.00 seconds")


@pytest.mark.parametrize("hello", [Hello(99, python_version()), Hello(1, "cpython 2.7"), Loaded()])
async def test_a_worker_of_another_version_is_refused(workers, hello):
    async def foreign(child):
        child.say(hello)
        await trio.sleep_forever()

    invoker, _ = workers(foreign)
    with pytest.raises(Unavailable, match="of another version"):
        await invoker.invoke({}, INVOCATION)


async def test_where_no_process_can_be_started_nobody_is_blamed(workers):
    invoker, _ = workers(None, obedient)
    with pytest.raises(Unavailable, match="no more processes"):
        await invoker.invoke({}, INVOCATION)
    assert await invoker.invoke({}, INVOCATION) == Returned(1)


async def test_closing_ends_what_runs_and_blames_nobody(workers, autojump_clock):
    invoker, processes = workers(obedient, concurrency=3)
    refused = []

    async def invoke():
        with pytest.raises(Unavailable):
            await invoker.invoke({"seconds": 2}, INVOCATION)
        refused.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(invoke)
        await trio.sleep(1)
        await invoker.close()
    assert len(refused) == 4
    assert all(child.is_closed for child in processes.children)
    with pytest.raises(Unavailable):
        await invoker.invoke({}, INVOCATION)
    assert len(processes.children) == 3


async def test_closing_waits_for_a_worker_that_is_being_started(workers, autojump_clock):
    invoker, processes = workers(obedient)
    processes.seconds = 5

    async def invoke():
        with pytest.raises(Unavailable):
            await invoker.invoke({}, INVOCATION)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(invoke)
        await trio.sleep(1)
        await invoker.close()
        assert [child.is_closed for child in processes.children] == [True]


async def test_cancelling_the_nursery_ends_every_worker(nursery, autojump_clock):
    processes = FakeProcesses(nursery, obedient)
    refused = []

    async with trio.open_nursery() as inside:
        invoker = WorkerInvoker(
            inside, processes, CodeDirectory("/here", "a.b"), name="f", environment={},
            directory="/here",
        )  # fmt: skip

        async def invoke():
            with pytest.raises(Unavailable):
                await invoker.invoke({"seconds": 2}, INVOCATION)
            refused.append(1)

        nursery.start_soon(invoke)
        await trio.sleep(1)
        inside.cancel_scope.cancel()
    await trio.sleep(0.1)
    assert refused == [1]
    assert processes.children[0].is_closed
