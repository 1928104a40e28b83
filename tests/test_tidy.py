"""Habits that no linter knows: which doors may be opened where, and what must not be left lying.

Pure rooms stay replayable from a seed only while nobody in them asks for the time, draws a random
number, opens a file or starts a thread. Each rule is a function over one module's tree that yields
(line, complaint).
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_THE_NODE = ("tests", "bench", "tools", "docs", "examples", "build", "dist")

# Programs round the node, not parts of it: they may look at the clock and open files.
# lambdas/worker.py is what runs in a worker process: users' code, which no seed replays, under a
# clock of its own, with trio where the handler is async.
PROGRAMS = ("cli/", "demo/", "__main__.py", "lambdas/worker.py")
TRIO_ALLOWED = (
    "actors/", "host/", "simulation/", "api/server.py", "lambdas/runtime.py",
    "lambdas/worker.py", "cli/serve.py", "database.py", "handlers.py", "service.py",
    "serving_handlers.py",
)  # fmt: skip
LINES_MAX = 600

BANNED_MODULES = {
    "asyncio": "the loop is trio's",
    "attr": "values are msgspec.Struct",
    "attrs": "values are msgspec.Struct",
    "dataclasses": "values are msgspec.Struct",
    "multiprocessing": "processes come through host/",
    "random": "randomness comes through the constructor",
    "secrets": "randomness comes through the constructor",
    "socket": "the network comes through host/",
    "subprocess": "processes come through host/",
    "tempfile": "files come through host/",
    "threading": "threads come through host/",
}
BANNED_CALLS = {
    "hash": "the hash of a string differs from process to process",
    "open": "files come through host/",
    "os.open": "files come through host/",
    "os.urandom": "randomness comes through the constructor",
    "uuid.uuid1": "ids come through the constructor",
    "uuid.uuid4": "ids come through the constructor",
    "time.monotonic": "the clock comes through the constructor",
    "time.monotonic_ns": "the clock comes through the constructor",
    "time.perf_counter": "the clock comes through the constructor",
    "time.sleep": "nothing sleeps on the real clock",
    "time.time": "the clock comes through the constructor",
    "time.time_ns": "the clock comes through the constructor",
    "datetime.now": "the clock comes through the constructor",
    "datetime.today": "the clock comes through the constructor",
    "datetime.utcnow": "the clock comes through the constructor",
    "date.today": "the clock comes through the constructor",
}
# (file, what): each with its reason.
EXCUSED = {
    # A workload draws from a generator that it was given; the type must be named.
    ("simulation/", "random"),
    # LMDB's own file, read before its C code maps it: a damaged page would kill the process.
    ("storage/tree/lmdb_file.py", "os.open"),
}
CHANGING_METHODS = {
    "add", "append", "apply", "clear", "close", "discard", "extend", "insert", "pop", "popitem",
    "popleft", "remove", "send", "setdefault", "update", "write",
}  # fmt: skip

Complaints = Iterator[tuple[int, str]]


def modules() -> list[str]:
    """Every module of the package, relative to the root."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        first = name.split("/")[0]
        if not first.startswith(".") and first not in NOT_THE_NODE:
            found.append(name)
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The absolute imports of a module: (line, first part of the name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a chain of names; of anything longer, what ends it."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return ""


def excused(name: str, what: str) -> bool:
    return any(name.startswith(where) and what == excuse for where, excuse in EXCUSED)


def trio_stays_in_its_rooms(name: str, tree: ast.Module) -> Complaints:
    if not name.startswith(TRIO_ALLOWED):
        for line, module in imports(tree):
            if module == "trio":
                yield line, "imports trio: machines are synchronous, programs call actors"


def the_world_comes_through_host(name: str, tree: ast.Module) -> Complaints:
    if name.startswith(("host/", *PROGRAMS)):
        return
    for line, module in imports(tree):
        if module in BANNED_MODULES and not excused(name, module):
            yield line, f"imports {module}: {BANNED_MODULES[module]}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ".".join(dotted(node.func).split(".")[-2:])
            if called in BANNED_CALLS and not excused(name, called):
                yield node.lineno, f"calls {called}: {BANNED_CALLS[called]}"


def no_loop_over_a_set(_name: str, tree: ast.Module) -> Complaints:
    for node in ast.walk(tree):
        if isinstance(node, ast.For):
            over = node.iter
            is_call = isinstance(over, ast.Call) and dotted(over.func) in ("set", "frozenset")
            if isinstance(over, (ast.Set, ast.SetComp)) or is_call:
                yield node.lineno, "loops over a set, whose order differs from run to run"


def asserts_change_nothing(_name: str, tree: ast.Module) -> Complaints:
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assert):
            for node in ast.walk(statement.test):
                if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield)):
                    yield statement.lineno, "does something inside an assert"
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    if node.func.attr in CHANGING_METHODS:
                        yield statement.lineno, f"calls {node.func.attr} inside an assert"


def cancellation_passes_through(_name: str, tree: ast.Module) -> Complaints:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            catches_all = node.type is None or dotted(node.type) == "BaseException"
            last = node.body[-1]
            if catches_all and not (isinstance(last, ast.Raise) and last.exc is None):
                yield node.lineno, "catches everything without raising it again"


def a_module_says_what_it_is(_name: str, tree: ast.Module) -> Complaints:
    if not ast.get_docstring(tree):
        yield 1, "has no docstring"


RULES: list[Callable[[str, ast.Module], Complaints]] = [
    trio_stays_in_its_rooms,
    the_world_comes_through_host,
    no_loop_over_a_set,
    asserts_change_nothing,
    cancellation_passes_through,
    a_module_says_what_it_is,
]


def complaints(name: str, source: str) -> list[str]:
    tree = ast.parse(source)
    return [f"{name}:{line} {said}" for rule in RULES for line, said in rule(name, tree)]


@pytest.mark.parametrize("name", modules())
def test_module_is_tidy(name):
    assert complaints(name, (ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", modules())
def test_module_is_one_concept(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= LINES_MAX


def test_nothing_is_left_to_do_and_no_machine_is_named():
    left = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|[\"'` (](/work|/tmp|/root)/")
    found = [
        f"{name}:{number}"
        for name in [*modules(), "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml"]
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
        if left.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("storage/a.py", "import trio", "imports trio"),
        ("storage/a.py", "from trio import sleep", "imports trio"),
        ("storage/a.py", "import random", "imports random"),
        ("storage/a.py", "import threading as t", "imports threading"),
        ("storage/a.py", "time.time()", "calls time.time"),
        ("storage/a.py", "datetime.datetime.now(x)", "calls datetime.now"),
        ("storage/a.py", "open('x')", "calls open"),
        ("api/a.py", "hash('x')", "calls hash"),
        ("api/a.py", "for x in {1, 2}: pass", "loops over a set"),
        ("api/a.py", "for x in set(y): pass", "loops over a set"),
        ("api/a.py", "assert x.pop()", "calls pop inside an assert"),
        ("api/a.py", "assert (x := 1)", "does something inside an assert"),
        ("api/a.py", "try: pass\nexcept: pass", "catches everything"),
        ("api/a.py", "try: pass\nexcept BaseException: x = 1", "catches everything"),
    ],
)
def test_the_rules_bite(name, source, said):
    assert any(said in complaint for complaint in complaints(name, '"""Doc."""\n' + source))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("actors/a.py", "import trio"),
        ("api/server.py", "import trio"),
        ("host/a.py", "import os\nos.urandom(1)\nopen('x')"),
        ("storage/a.py", "self.disk.open('x')\nfrom .random import x\nclock.time()"),
        ("simulation/a.py", "import random"),
        ("api/a.py", "for x in sorted(set(y)): pass"),
        ("api/a.py", "try: pass\nexcept BaseException:\n  x = 1\n  raise"),
    ],
)
def test_the_rules_let_pass_what_is_right(name, source):
    assert complaints(name, '"""Doc."""\n' + source) == []
