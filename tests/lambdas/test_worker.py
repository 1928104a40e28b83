"""Workers as real processes: few, since each costs a tenth of a second."""

import logging
import mmap
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest
import trio

import millstream
from millstream.errors import MillstreamError, TransactionConflict
from millstream.host.processes import RealProcesses
from millstream.lambdas.environment import Endpoint, Setup, function_environment
from millstream.lambdas.protocol import CodeDirectory, pickled
from millstream.lambdas.results import Invocation, Returned
from millstream.lambdas.runtime import WorkerInvoker

INVOCATION = Invocation("id", "f", "arn:f", "$LATEST", 128, 30.0, "Root=1;Lineage=a:1")
ENVIRONMENT = {"PATH": os.environ["PATH"]}
STANDARD = [place for place in sys.path if Path(place).name.startswith("python3")]
ENDPOINT = Endpoint("http://127.0.0.1:8000", "eu-west-1", "key", "secret")


@pytest.fixture
async def make(nursery, tmp_path):
    """Makes invokers of real processes, and sees to it that none is left."""
    made = []

    def invoker_of(program, environment=ENVIRONMENT, **more):
        invoker = WorkerInvoker(
            nursery, RealProcesses(), program, name="f", environment=environment,
            directory=str(tmp_path), **more,
        )  # fmt: skip
        made.append(invoker)
        return invoker

    yield invoker_of
    for invoker in made:
        await invoker.close()


def code(folder, source, handler="app.handler"):
    (folder / "app.py").write_text(textwrap.dedent(source), encoding="utf-8")
    return CodeDirectory(str(folder), handler)


def wait_until(condition):
    """For what the kernel or another process does soon."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_gone(pid):
    """Until no process has this number, or only one that nobody has waited for."""
    wait_until(lambda: not is_alive(pid))


def is_alive(pid):
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")")[1].split()[0]
        return state != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        # It has gone in between; or there is no such directory on this system.
        return sys.platform != "linux"


async def test_a_function_travels_prints_fails_and_goes_on(make, caplog):
    caplog.set_level(logging.INFO, "millstream.lambdas.output")
    calls = []

    def handler(event, context):
        calls.append(1)
        print("printed", event["do"])
        print("error", file=sys.stderr)
        os.write(1, b"raw")
        if event["do"] == "raise":
            raise LookupError("lost")
        if event["do"] == "set":
            return {1}
        if event["do"] == "large":
            return "x" * (7 << 20)
        return {
            "calls": len(calls),
            "pid": os.getpid(),
            "environment": dict(os.environ),
            "argv": sys.argv[1:],
            "light": not {"trio", "millstream.storage", "lmdb"} & set(sys.modules),
            "remaining": context.get_remaining_time_in_millis(),
        }

    invoker = make(pickled(handler))
    first = await invoker.invoke({"do": "return"}, INVOCATION)
    assert first.log_tail == "printed return\nerror\nraw"
    assert first.payload["calls"] == 1
    assert first.payload["argv"] == []
    assert first.payload["light"]
    assert 0 < first.payload["remaining"] <= 30_000
    environment = first.payload["environment"]
    assert environment.pop("_X_AMZN_TRACE_ID") == INVOCATION.trace_id
    environment.pop("LC_CTYPE", None)
    assert environment == ENVIRONMENT
    failed = await invoker.invoke({"do": "raise"}, INVOCATION)
    assert (failed.error_type, failed.message) == ("LookupError", "lost")
    assert [line.split(", in ")[1].split("\n")[0] for line in failed.trace] == ["handler"]
    assert failed.log_tail == "printed raise\nerror\nraw"
    failed = await invoker.invoke({"do": "set"}, INVOCATION)
    assert failed.error_type == "Runtime.MarshalError"
    failed = await invoker.invoke({"do": "large"}, INVOCATION)
    assert failed.error_type == "Function.ResponseSizeTooLarge"
    last = await invoker.invoke({"do": "return"}, INVOCATION)
    assert last.payload["calls"] == 5
    assert last.payload["pid"] == first.payload["pid"]
    said = [record.getMessage() for record in caplog.records]
    assert said.count("f: error") == 5
    assert said[:3] == ["f: printed return", "f: error", "f: raw"]


async def test_lambdas_way_of_loading_logging_and_environment(make, tmp_path):
    setup = Setup("f", "$LATEST", 128, "app.handler", str(tmp_path), "/runtime")
    environment = function_environment(setup, ENDPOINT, {"STAGE": "x"}, os.environ)
    program = code(
        tmp_path,
        """
        import logging, os
        import helper
        logger = logging.getLogger()
        logger.setLevel(logging.INFO)

        def handler(event, context):
            logger.info("hello")
            context.log("raw\\n")
            return [helper.WORD, os.getcwd(), os.environ["STAGE"], os.environ["_HANDLER"],
                    context.function_name, context.log_stream_name, event]
        """,
    )
    (tmp_path / "helper.py").write_text("WORD = 'helped'", encoding="utf-8")
    invoker = make(program, environment, memory_limit_mb=128)
    result = await invoker.invoke([1, 2.5, None], INVOCATION)
    here = str(tmp_path)
    assert result.payload == ["helped", here, "x", "app.handler", "f", "[$LATEST]", [1, 2.5, None]]
    level, _, request_id, message = result.log_tail.split("\n")[0].split("\t")
    assert (level, request_id, message) == ("[INFO]", "id", "hello")
    assert result.log_tail.split("\n")[1] == "raw"


@pytest.mark.parametrize(
    "source, handler, error_type, message",
    [
        ("import nothing_like_this", "app.handler", "Runtime.ImportModuleError",
         "Unable to import module 'app': No module named 'nothing_like_this'"),
        ("def", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': "),
        ("", "app.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("", "handler", "Runtime.MalformedHandlerName", "Bad handler 'handler': "),
        ("1 / 0", "app.handler", "ZeroDivisionError", "division by zero"),
        ("import sys; sys.exit(4)", "app.handler", "Runtime.ExitError",
         "RequestId: id Error: Runtime exited with error: exit status 4"),
    ],
)  # fmt: skip
async def test_what_cannot_be_loaded_says_so(make, tmp_path, source, handler, error_type, message):
    result = await make(code(tmp_path, source, handler)).invoke({}, INVOCATION)
    assert result.error_type == error_type
    assert result.message.startswith(message)
    if error_type == "ZeroDivisionError":
        assert len(result.trace) == 1
        assert "app.py" in result.trace[0]


async def test_what_a_module_defines_travels_by_name_with_the_nodes_path(
    make, tmp_path, monkeypatch
):
    (tmp_path / "an_application.py").write_text(
        "import os\nPID = os.getpid()\ndef handler(event, context):\n    return PID\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    import an_application

    program = pickled(an_application.handler)
    assert b"getpid" not in program.pickle
    result = await make(program).invoke({}, INVOCATION)
    assert result.payload != an_application.PID


async def test_the_function_and_the_standard_library_come_before_the_nodes_packages(make, tmp_path):
    program = code(tmp_path, "import sys\ndef handler(event, context):\n    return sys.path")
    path = (await make(program).invoke({}, INVOCATION)).payload
    assert path[0] == str(tmp_path)
    assert [Path(place).name for place in path[1:3]] == [Path(p).name for p in STANDARD[:2]]


async def test_a_pickle_of_other_versions_is_refused(make):
    program = msgspec.structs.replace(pickled(print), cloudpickle="0.1")
    result = await make(program).invoke({}, INVOCATION)
    assert result.error_type == "Runtime.VersionMismatch"
    assert "cloudpickle 0.1" in result.message


class Conflicting:
    """A transaction in which every second question meets a conflict."""

    def __init__(self):
        self.puts = []

    async def get(self, table, key):
        await trio.lowlevel.checkpoint()
        if key["id"] == 2:
            raise TransactionConflict("held")
        return {**key, "data": b"\0\xff", "of": {1, 2}}

    def put(self, table, item, **more):
        self.puts.append((table, item, more))


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_transaction_in_a_worker_reads_and_records(make, is_async):
    def check(tx, item):
        assert item == {"id": 1, "data": b"\0\xff", "of": {1, 2}}
        tx.put("t", {**item, "n": 1}, condition="n = :n", values={":n": 0})

    def plain(event, context):
        check(context.transaction, context.transaction.get("t", {"id": 1}))
        context.transaction.get("t", {"id": 2})

    async def coroutine(event, context):
        import trio

        await trio.lowlevel.checkpoint()
        check(context.transaction, await context.transaction.get("t", {"id": 1}))
        await context.transaction.get("t", {"id": 2})

    def forgiving(event, context):
        try:
            plain(event, context)
        except MillstreamError as error:
            return type(error).__name__

    transaction = Conflicting()
    failed = await make(pickled(coroutine if is_async else plain)).invoke(
        {}, INVOCATION, transaction
    )
    assert (failed.error_type, failed.message) == ("TransactionConflict", "held")
    handler = "coroutine" if is_async else "plain"
    assert [line.split(", in ")[1].split("\n")[0] for line in failed.trace][0] == handler
    assert transaction.puts == []
    if not is_async:
        result = await make(pickled(forgiving)).invoke({}, INVOCATION, transaction)
        assert result == Returned("TransactionConflict")
        ((table, item, more),) = transaction.puts
        assert (table, item) == ("t", {"id": 1, "data": b"\0\xff", "of": {1, 2}, "n": 1})
        assert more == {"condition": "n = :n", "names": None, "values": {":n": 0}}


async def test_death_and_time_end_a_worker_and_the_next_one_serves(make):
    def handler(event, context):
        if event == "exit":
            sys.exit(5)
        if event == "sleep":
            time.sleep(1000)
        return os.getpid()

    invoker = make(pickled(handler))
    pids = [(await invoker.invoke("", INVOCATION)).payload]
    result = await invoker.invoke("exit", INVOCATION)
    assert result.message == "RequestId: id Error: Runtime exited with error: exit status 5"
    pids.append((await invoker.invoke("", INVOCATION)).payload)
    quick = msgspec.structs.replace(INVOCATION, timeout_seconds=0.03)
    result = await invoker.invoke("sleep", quick)
    assert result.error_type == "Sandbox.Timedout"
    assert result.message == "id Task timed out after 0.03 seconds"
    pids.append((await invoker.invoke("", INVOCATION)).payload)
    assert len(set(pids)) == 3
    assert not is_alive(pids[0])
    assert not is_alive(pids[1])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce it")
async def test_memory_is_bounded_and_what_is_only_reserved_does_not_count(make):
    def handler(event, context):
        reserved = mmap.mmap(-1, 4 << 30, prot=mmap.PROT_READ)
        return len(bytearray(event << 20)) + len(reserved)

    invoker = make(pickled(handler), memory_limit_mb=128)
    assert (await invoker.invoke(100, INVOCATION)).payload == (100 << 20) + (4 << 30)
    result = await invoker.invoke(200, INVOCATION)
    assert result.error_type == "Runtime.OutOfMemory"
    assert (await invoker.invoke(100, INVOCATION)).payload


async def test_a_killed_worker_takes_with_it_what_it_has_started(make):
    def handler(event, context):
        sleeper = subprocess.Popen(["sleep", "1000"])
        print(sleeper.pid)
        sleeper.wait()

    class Listener(logging.Handler):
        def emit(self, record):
            pids.append(int(record.getMessage().split()[-1]))
            scope.cancel()

    pids, scope, listener = [], trio.CancelScope(), Listener()
    output = logging.getLogger("millstream.lambdas.output")
    output.addHandler(listener)
    output.setLevel(logging.INFO)
    try:
        with scope:
            await make(pickled(handler)).invoke({}, INVOCATION)
    finally:
        output.removeHandler(listener)
        output.setLevel(logging.NOTSET)
    wait_gone(*pids)


NODE = """
import os, sys, trio
from millstream.host.processes import RealProcesses
from millstream.lambdas.protocol import CodeDirectory
from millstream.lambdas.results import Invocation
from millstream.lambdas.runtime import WorkerInvoker

async def main():
    async with trio.open_nursery() as nursery:
        invoker = WorkerInvoker(
            nursery, RealProcesses(), CodeDirectory(sys.argv[1], "app.handler"), name="f",
            environment={}, directory=sys.argv[1],
        )
        await invoker.invoke({}, Invocation("id", "f", "a", "1", 128, 1000.0))

trio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux")
def test_nothing_is_left_of_a_node_that_is_killed_in_the_middle(tmp_path):
    # The handler holds the GIL in C code for good: no thread of the worker's could act.
    code(
        tmp_path,
        """
        import os, re, subprocess
        def handler(event, context):
            sleeper = subprocess.Popen(["sleep", "1000"])
            with open("pids.new", "w") as file:
                file.write(f"{os.getpid()} {sleeper.pid}")
            os.rename("pids.new", "pids")
            re.match("(a+)+$", "a" * 60 + "b")
        """,
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    node = subprocess.Popen([sys.executable, "-c", NODE, tmp_path], env=environment)
    try:
        wait_until(lambda: (tmp_path / "pids").exists() or node.poll() is not None)
    finally:
        node.send_signal(signal.SIGKILL)
        node.wait()
    for pid in (tmp_path / "pids").read_text(encoding="ascii").split():
        wait_gone(int(pid))


def test_the_worker_imports_nothing_heavy():
    script = (
        "import sys, millstream.lambdas.worker; "
        "print(*sorted(name for name in sys.modules if name.startswith('millstream.')), "
        "*({'trio', 'cloudpickle', 'json', 'traceback', 'logging', 'socket'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [
        "millstream.errors", "millstream.host", "millstream.host.lifeline", "millstream.lambdas",
        "millstream.lambdas.callables", "millstream.lambdas.context", "millstream.lambdas.protocol",
        "millstream.lambdas.results", "millstream.lambdas.worker", "millstream.limits",
    ]  # fmt: skip
    assert millstream.__version__
