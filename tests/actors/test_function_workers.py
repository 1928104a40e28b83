"""Functions in real worker processes."""

from __future__ import annotations

import os

import trio

from millstream.actors.function_workers import worker_invokers
from millstream.actors.functions import open_functions
from millstream.host.host import real_host
from millstream.host.processes import RealProcesses
from millstream.lambdas.environment import Endpoint
from millstream.lambdas.results import Failed, Returned
from millstream.tests.lambdas.fakes import FIELDS, FakeEntries, package

TELLING = package(
    "import os\n"
    "from lib.helper import add\n"
    "def handler(event, context):\n"
    "    print('seen', event)\n"
    "    if event == 'fail':\n"
    "        raise KeyError(event)\n"
    "    names = ('TABLE', 'AWS_ACCESS_KEY_ID', 'AWS_ENDPOINT_URL_DYNAMODB', 'LAMBDA_TASK_ROOT')\n"
    "    told = [os.environ[name] for name in names]\n"
    "    return [add(1, 2), os.getpid(), context.function_name, os.getcwd(), *told]\n",
    **{"lib/helper.py": "def add(a, b):\n    return a + b\n"},
)


async def test_function_runs_in_a_process_of_its_own(tmp_path, monkeypatch):
    host = real_host()
    # Workers have another working directory than the node.
    monkeypatch.chdir(tmp_path)

    def endpoint_of(namespace: str) -> Endpoint:
        return Endpoint("http://127.0.0.1:1", "us-east-1", namespace, "secret")

    async with trio.open_nursery() as nursery:
        make = worker_invokers(nursery, RealProcesses(), os.environ, endpoint_of)
        async with open_functions(
            host, ".", FakeEntries(), make, region="us-east-1", account="123456789012"
        ) as functions:
            fields = FIELDS | {"environment": {"TABLE": "t"}, "timeout_seconds": 60}
            await functions.create("ns-a", "f", fields, TELLING)
            answer = await functions.invoke("ns-a", "f", {"n": 1})
            assert isinstance(answer, Returned), answer
            total, process, name, directory, *environment = answer.payload
            assert (total, name) == (3, "f")
            assert process != os.getpid()
            assert directory == environment.pop()
            assert directory.startswith(f"{tmp_path}/functions/unpacked/")
            assert environment == ["t", "ns-a", "http://127.0.0.1:1"]
            assert "seen {'n': 1}" in answer.log_tail
            failed = await functions.invoke("ns-a", "f", "fail")
            assert isinstance(failed, Failed)
            assert failed.error_type == "KeyError"
            await functions.update_configuration("ns-a", "f", {"environment": {"TABLE": "u"}})
            again = await functions.invoke("ns-a", "f", 1)
            assert isinstance(again, Returned)
            assert again.payload[4] == "u" and again.payload[1] != process
