"""GetRecords over HTTP, as ``bench.triggers`` measures it: one reader from horizon to end."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

from .client import RequestFailed, exchange
from .processes import usage
from .servers import Ours, prepare
from .signing import ITEMS, STREAMS, Signer
from .trigger_runs import TABLE, Spent, create_table, items
from .workloads import BATCH_ITEMS


class _Client:
    """Signed requests to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._signer = Signer()

    def request(self, operation: str, body: dict[str, Any], service: str = ITEMS) -> bytes:
        return self._signer.request(operation, json.dumps(body).encode(), service)

    def send(self, request: bytes) -> bytes:
        status, body = exchange(self._port, request)
        if status != 200:
            raise RequestFailed(f"{status}: {body[:300]!r}")
        return body

    def call(self, operation: str, body: dict[str, Any], service: str = ITEMS) -> Any:
        return json.loads(self.send(self.request(operation, body, service)))


def get_records(directory: Path, records: int, rounds: int) -> list[Spent]:
    """A server with a shard of so many records, read with pages of 1,000."""
    ours = Ours(directory)
    try:
        client = _Client(ours.server.port)
        create = client.request(
            "CreateTable", json.loads(create_table(TABLE, "NEW_AND_OLD_IMAGES"))
        )
        prepare(ours.server, [create], [client.request("DescribeTable", {"TableName": TABLE})])
        source = items(0, records)
        while part := list(itertools.islice(source, BATCH_ITEMS)):
            puts = [
                {"PutRequest": {"Item": {name: {"S": text} for name, text in item.items()}}}
                for item in part
            ]
            client.call("BatchWriteItem", {"RequestItems": {TABLE: puts}})
        return [_read(client, ours.server.pid, records) for _ in range(rounds)]
    finally:
        ours.stop()


def _read(client: _Client, pid: int, records: int) -> Spent:
    (stream,) = client.call("ListStreams", {"TableName": TABLE}, STREAMS)["Streams"]
    arn = stream["StreamArn"]
    description = client.call("DescribeStream", {"StreamArn": arn}, STREAMS)["StreamDescription"]
    (shard,) = description["Shards"]
    where = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    iterator = client.call("GetShardIterator", where, STREAMS)["ShardIterator"]
    count, elapsed, cpu_seconds = 0, 0.0, usage(pid).cpu_seconds
    while count < records:
        request = client.request("GetRecords", {"ShardIterator": iterator}, STREAMS)
        began = time.perf_counter()
        answer = client.send(request)
        # What the client does with it is not counted.
        elapsed += time.perf_counter() - began
        page = json.loads(answer)
        count += len(page["Records"])
        iterator = page["NextShardIterator"]
    return Spent(count, elapsed, usage(pid).cpu_seconds - cpu_seconds)
