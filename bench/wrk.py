"""``wrk`` as the load generator, where it is installed.

wrk's Lua could sign requests, slowly; instead it reads a file of requests that are signed already
and sends them round robin. Two things differ from the Python client: an operation of two requests
(workload F) is two operations to wrk, one connection's read not waiting for its write; and answers
are checked by their status and mean length only.
"""

from __future__ import annotations

import itertools
import math
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from .client import Job, Noise, Outcome, RequestFailed, Server
from .processes import usage
from .workloads import Operation, operations

_SCRIPT = """
local requests, at = {}, 0
function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  while true do
    local size = file:read("*n")
    if not size then break end
    file:read(1)
    requests[#requests + 1] = file:read(size)
  end
  file:close()
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests":%d,"bytes":%d,"microseconds":%d,"errors":%d,"p50":%d,"p99":%d}\\n',
    summary.requests, summary.bytes, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class _Summary(msgspec.Struct, frozen=True):
    """What the script prints; latencies in microseconds."""

    requests: int
    bytes: int
    microseconds: int
    errors: int
    p50: int
    p99: int


def find_wrk() -> str | None:
    """The program's path, if there is one."""
    return shutil.which("wrk")


def work(job: Job, wrk: str) -> list[Outcome]:
    """The outcomes, in the order of the job's servers. The job must have a count and seconds."""
    assert job.count is not None
    assert job.seconds is not None
    ready = list(itertools.islice(operations(job.plan), job.count))
    with tempfile.TemporaryDirectory() as directory:
        script, requests = Path(directory) / "script.lua", Path(directory) / "requests"
        script.write_text(_SCRIPT, encoding="ascii")
        with requests.open("wb") as file:
            for request, _ in itertools.chain.from_iterable(ready):
                file.write(b"%d\n" % len(request) + request)
        return [_measure(job, server, ready, [wrk, str(script), str(requests)])
                for server in job.servers]  # fmt: skip


def _measure(job: Job, server: Server, ready: list[Operation], paths: list[str]) -> Outcome:
    wrk, script, requests = paths
    assert job.seconds is not None
    command = [
        wrk, "-t1", f"-c{job.connections}", f"-d{math.ceil(job.seconds)}s", "-s", script,
        f"http://127.0.0.1:{server.port}/", "--", requests,
    ]  # fmt: skip
    noise = Noise()
    before = usage(server.pid)
    result = subprocess.run(command, capture_output=True, text=True)
    after = usage(server.pid)
    if result.returncode:
        raise RequestFailed(f"wrk failed: {result.stderr or result.stdout}")
    summary = msgspec.json.decode(result.stdout.splitlines()[-1], type=_Summary)
    sent = [request for operation in ready for request in operation]
    bytes_min = sum(least for _, least in sent) / len(sent)
    if summary.errors or summary.bytes < 0.9 * bytes_min * summary.requests:
        raise RequestFailed(f"{server.name}: {summary.errors} errors in {summary}")
    return Outcome(
        operations=round(summary.requests * len(ready) / len(sent)),
        elapsed_seconds=summary.microseconds / 1e6,
        cpu_before_seconds=before.cpu_seconds,
        cpu_after_seconds=after.cpu_seconds,
        rss_bytes=after.rss_bytes,
        rss_anonymous_bytes=after.rss_anonymous_bytes,
        p50_seconds=summary.p50 / 1e6,
        p99_seconds=summary.p99 / 1e6,
        throttled=0,
        others_share=noise.others_share(after.cpu_seconds - before.cpu_seconds),
    )
