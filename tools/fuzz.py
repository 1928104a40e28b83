"""``make fuzz``: whatever comes in at the door, an answer below 500 goes out; the data is right.

Four kinds of cases, in turns: changed requests for the item operations, changed requests for the
table operations, bodies near the largest, and broken or unusual HTTP. Case ``i`` of a seed is made
from ``Random("seed/i")``; what it meets depends on the cases before it, so a failure names both.

After each case: an answer of HTTP for each request that was complete, none of status 5xx, in a
bounded time of the server's CPU (Linux tells it), from a server of bounded memory. After each few:
the tables and indexes are what ``fuzz_model`` expects. At the end the server stops in order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .fuzz_http import (
    Answer,
    Door,
    Exchange,
    Exchanges,
    NotHttp,
    converse,
    error_kind,
    read_answers,
)
from .fuzz_model import KEY_NAMES, Model, Wrong
from .fuzz_mutations import mutate, render, scramble
from .fuzz_requests import (
    COUNTED,
    ITEM_REQUESTS,
    TABLE,
    TABLE_REQUESTS,
    huge,
    tables,
)
from .server import Server, ServerFailed

RSS_BYTES_MAX = 400 * 1024 * 1024
CPU_SECONDS_MAX = 1.0
# So much of a case's bytes may cost that; what is larger may cost more in proportion.
CPU_BYTES = 4 * 1024 * 1024
ANSWER_SECONDS_MAX = 20.0
CHECK_CASES = 25
TABLES_NAMESPACE = "ns-fuzz-tables"
ITEMS_NAMESPACE = "ns-fuzz-items"
# Beyond this much in the tables they are emptied, so that comparing them stays cheap.
ITEMS_BYTES_MAX = 500_000
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Limits:
    """What one case may cost the server."""

    def __init__(
        self, *, cpu_seconds: float = CPU_SECONDS_MAX, rss_bytes: int = RSS_BYTES_MAX
    ) -> None:
        self.cpu_seconds = cpu_seconds
        self.rss_bytes = rss_bytes


class Fuzzer:
    """Sends cases to one running ``server``. Raises ``Wrong`` at the first that goes wrong.

    Without ``heavy`` there are no bodies of many megabytes, which cost the client seconds.
    """

    def __init__(self, server: Server, seed: int, limits: Limits, *, heavy: bool = True) -> None:
        parts = urlsplit(server.endpoint)
        assert parts.hostname is not None and parts.port is not None
        self._server = server
        self._seed = seed
        self._heavy = heavy
        self._limits = limits
        self._items = Door(parts.hostname, parts.port, ITEMS_NAMESPACE)
        self._tables = Door(parts.hostname, parts.port, TABLES_NAMESPACE)
        self._model = Model()
        self._table_names: set[str] = set()
        self._recent: deque[str] = deque(maxlen=CHECK_CASES)
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.slowest = (0.0, "")
        self.rss_bytes = 0
        # By the case at hand.
        self._sent_bytes = 0
        for request in tables():
            self._must("CreateTable", request)
        for request in tables():
            while (
                self._must("DescribeTable", {"TableName": request["TableName"]})["Table"][
                    "TableStatus"
                ]
                != "ACTIVE"
            ):
                pass
        self._put_seen()
        self._exchanges = Exchanges(
            self._items, ("GetItem", render({"TableName": COUNTED, "Key": _SEEN}))
        )

    def _put_seen(self) -> None:
        """An item that the cases about HTTP read."""
        request = {"TableName": COUNTED, "Item": {**_SEEN, "text": {"S": "seen" * 1000}}}
        self._must("PutItem", request)
        self._model.succeeded("PutItem", render(request), {}, self._call)

    def case(self, number: int) -> None:
        """Send case ``number``. Raises ``Wrong``, with all that is needed to see it again."""
        rng = random.Random(f"{self._seed}/{number}")
        told = f"case {number}"
        before = self._cpu_seconds()
        self._sent_bytes = 0
        try:
            kind = rng.random()
            if kind < 0.60:
                told = self._item_case(rng)
            elif kind < 0.72:
                told = self._table_case(rng)
            elif kind < 0.994 or not self._heavy:
                told = self._http_case(rng)
            else:
                told = self._huge_case(rng)
        except (Wrong, NotHttp, OSError) as error:
            raise Wrong(self._explain(number, error)) from error
        spent = self._cpu_seconds() - before
        allowed = self._limits.cpu_seconds * max(1.0, self._sent_bytes / CPU_BYTES)
        if spent > self.slowest[0]:
            self.slowest = (spent, f"case {number}: {told[:120]}")
        self._measure()
        if spent > allowed:
            raise Wrong(self._explain(number, f"it took {spent:.2f} s of the server's CPU"))
        if self.rss_bytes > self._limits.rss_bytes:
            raise Wrong(self._explain(number, f"the server has {self.rss_bytes >> 20} MB"))
        if number % CHECK_CASES == CHECK_CASES - 1:
            self.check(number)

    def check(self, number: int) -> None:
        """Compare the data with the model. Raises ``Wrong``."""
        try:
            self._model.check(self._call)
            self._check_tables()
            if self._model.size_bytes() > ITEMS_BYTES_MAX:
                self._empty()
        except (Wrong, NotHttp, OSError) as error:
            recent = "\n  ".join(_brief(text, 400) for text in self._recent)
            raise Wrong(
                f"after case {number} of seed {self._seed}: {error}\n  the cases before it:\n"
                f"  {recent}"
            ) from error

    # Cases.

    def _item_case(self, rng: random.Random) -> str:
        operation, make = rng.choice(ITEM_REQUESTS)
        body = self._changed(rng, make(rng))
        answer = self._exchange_one(self._items, operation, body)
        if answer.status == 200:
            self._model.succeeded(operation, body, json.loads(answer.body), self._call)
        return operation

    def _table_case(self, rng: random.Random) -> str:
        operation, make = rng.choice(TABLE_REQUESTS)
        body = self._changed(rng, make(rng))
        answer = self._exchange_one(self._tables, operation, body)
        if answer.status == 200 and operation in ("CreateTable", "DeleteTable"):
            name = json.loads(answer.body)["TableDescription"]["TableName"]
            if operation == "CreateTable":
                self._table_names.add(name)
            else:
                self._table_names.discard(name)
        return operation

    def _huge_case(self, rng: random.Random) -> str:
        operation, body = huge(rng)
        answer = self._exchange_one(self._items, operation, body)
        if answer.status == 200:
            self._model.succeeded(operation, body, json.loads(answer.body), self._call)
        return f"{operation} of {len(body)} bytes"

    def _http_case(self, rng: random.Random) -> str:
        exchange = self._exchanges.make(rng)
        self._note(f"{exchange.what}: {b''.join(exchange.parts)[:4000]!r}")
        answers = self._exchange(self._items, exchange)
        statuses = [answer.status for answer in answers]
        self.kinds[exchange.what.split(":")[0].split(" of ")[0]] += 1
        if len(answers) < exchange.least:
            raise Wrong(f"{len(answers)} answers, not {exchange.least}: {statuses}")
        if exchange.statuses is not None and statuses != exchange.statuses:
            raise Wrong(f"the answers are {statuses}, not {exchange.statuses}")
        return exchange.what

    def _changed(self, rng: random.Random, request: dict[str, Any]) -> bytes:
        """The body of a request, mostly changed."""
        if rng.random() < 0.3:
            return render(request)
        if rng.random() < 0.15:
            return scramble(rng, render(request))
        return render(mutate(rng, request))

    # Talking.

    def _exchange_one(self, door: Door, operation: str, body: bytes) -> Answer:
        self._note(f"{operation} {body!r}")
        whole = door.request(operation, body)
        answers = self._exchange(door, Exchange(operation, [whole], None, 1))
        if len(answers) != 1:
            raise Wrong(f"{len(answers)} answers to one request")
        answer = answers[0]
        if answer.status != 200 and not error_kind(answer):
            raise Wrong(f"a refusal without __type: {answer}")
        self.counts[f"{operation} {answer.status}"] += 1
        self.kinds[error_kind(answer) or "success"] += 1
        return answer

    def _exchange(self, door: Door, exchange: Exchange) -> list[Answer]:
        self._sent_bytes += sum(map(len, exchange.parts))
        try:
            data = converse(door.host, door.port, exchange.parts, ANSWER_SECONDS_MAX)
        except TimeoutError:
            raise Wrong(f"no answer within {ANSWER_SECONDS_MAX:.0f} s") from None
        answers = read_answers(data, last_is_head=exchange.parts[0].startswith(b"HEAD "))
        for answer in answers:
            if answer.status >= 500:
                raise Wrong(f"status {answer.status}: {answer.body[:500]!r}")
        return answers

    def _call(self, operation: str, members: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A request that is as it must be, to the namespace of the items."""
        whole = self._items.request(operation, render(members))
        (answer,) = self._exchange(self._items, Exchange(operation, [whole], None, 1))
        return answer.status, json.loads(answer.body)

    def _must(self, operation: str, members: dict[str, Any]) -> dict[str, Any]:
        status, answer = self._call(operation, members)
        if status != 200:
            raise Wrong(f"{operation} is refused: {answer}")
        return answer

    # Checking.

    def _check_tables(self) -> None:
        for door, expected in (
            (self._items, {TABLE, COUNTED}),
            (self._tables, self._table_names),
        ):
            whole = door.request("ListTables", b"{}")
            (answer,) = self._exchange(door, Exchange("ListTables", [whole], None, 1))
            found = set(json.loads(answer.body)["TableNames"])
            # A deleted table is listed until it is gone, and a mutated name may be any.
            if missing := expected - found:
                raise Wrong(f"tables are gone: {sorted(missing)}")
            if door is self._items and found != expected:
                raise Wrong(f"tables that nobody made: {sorted(found - expected)}")
        if len(self._table_names) > 20:
            for name in sorted(self._table_names):
                body = render({"TableName": name})
                if self._exchange_one(self._tables, "DeleteTable", body).status == 200:
                    self._table_names.discard(name)

    def _empty(self) -> None:
        """Delete every item, by the keys that the model has."""
        for table, items in self._model.items.items():
            for item in list(items.values()):
                key = {name: item[name] for name in KEY_NAMES}
                self._must("DeleteItem", {"TableName": table, "Key": key})
            items.clear()
        self._put_seen()

    def _measure(self) -> None:
        status = Path(f"/proc/{self._server.process_id}/status")
        if status.exists():
            for line in status.read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    self.rss_bytes = int(line.split()[1]) * 1024

    def _cpu_seconds(self) -> float:
        stat = Path(f"/proc/{self._server.process_id}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND

    def _note(self, text: str) -> None:
        self._recent.append(text)

    def _explain(self, number: int, error: object) -> str:
        request = self._recent[-1] if self._recent else ""
        return f"case {number} of seed {self._seed}: {error}\n  {_brief(request, 4000)}"


_SEEN = {"pk": {"N": "42"}, "sk": {"B": "c2Vlbg=="}}


def _brief(text: str, characters: int) -> str:
    """All of a short text, both ends of a long one."""
    if len(text) <= characters:
        return text
    end = characters // 5
    return f"{text[: characters - end]} ... {len(text):,} characters ... {text[-end:]}"


def run(
    folder: Path,
    seed: int,
    *,
    seconds: float | None = None,
    cases: int | None = None,
    limits: Limits | None = None,
    heavy: bool = True,
    progress: bool = False,
) -> Fuzzer:
    """Fuzz a server of our own for ``seconds`` or ``cases``. Raises ``Wrong``."""
    # Two partitions, so that batches and scans have seams.
    server = Server(["--in-memory", "--partitions-per-table", "2"], folder / "server.log")
    server.start()
    try:
        fuzzer = Fuzzer(server, seed, limits or Limits(), heavy=heavy)
        began = said = time.monotonic()
        number = 0
        while cases is None or number < cases:
            now = time.monotonic()
            if seconds is not None and now - began > seconds:
                break
            if progress and now - said > 10:
                said = now
                print(f"fuzz: {number:,} cases, {fuzzer.rss_bytes >> 20} MB", flush=True)
            fuzzer.case(number)
            number += 1
        fuzzer.check(number)
        if server.stop() != 0:
            raise Wrong(f"the server did not stop in order: {_last_words(server)}")
    except ServerFailed as error:
        raise Wrong(f"the server did not start: {error}") from error
    except (Wrong, NotHttp, OSError) as error:
        words = _last_words(server)
        raise Wrong(
            f"{error}\n  the server's last words: {words}" if words else str(error)
        ) from None
    finally:
        server.kill()
    fuzzer.counts["cases"] = number
    return fuzzer


def _last_words(server: Server) -> str:
    text = server.log_path.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if " INFO " not in line]
    return "\n  ".join(lines)[-3000:]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 1 says that something is wrong."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="by default a new one each time")
    parser.add_argument("--cases", type=int, default=None, help="stop after so many")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"fuzz: seed {seed}, {options.seconds:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fuzzer = run(
                Path(folder), seed, seconds=options.seconds, cases=options.cases, progress=True
            )
        except Wrong as error:
            print(f"fuzz: WRONG: {error}", flush=True)
            return 1
    accepted = sum(count for name, count in fuzzer.counts.items() if name.endswith(" 200"))
    refused = sum(count for name, count in fuzzer.counts.items() if name.endswith(" 400"))
    print(
        f"fuzz: {fuzzer.counts['cases']:,} cases right: {accepted:,} requests accepted, "
        f"{refused:,} refused; {fuzzer.rss_bytes >> 20} MB at most; "
        f"slowest {fuzzer.slowest[0]:.2f} s of CPU ({fuzzer.slowest[1]})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
