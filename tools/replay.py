"""Plays the trace of a server on a model of the disk, and counts the answers that it has sent.

Only what lies under ``root`` is modelled. A call that would change files in a way that is not
modelled there (a shared writable map, a hard link, ...) stops the play, so that nothing passes
unseen. LMDB's lock file is the one exception: it is a shared map, its content means nothing after a
restart (LMDB makes it anew under an exclusive lock), and the model keeps its size only.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from .disk_model import SECTOR_BYTES, DirectoryNode, DiskModel, FileNode, Node
from .trace import Call, Moment

LOG, TREE, NAMES = "log", "tree", "names"
#: Which syncs can be left out, as if the program had forgotten them.
FORGETTABLE = (LOG, TREE, NAMES)

Connection: TypeAlias = tuple[int, int]
"""The phase of the server and the client's port."""

_LOCK_FILE = "lock.mdb"
_PORT = re.compile(r"htons\((\d+)\)")
_NUMBER = re.compile(r"-?\d+")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_REFUSED = frozenset(
    {"link", "linkat", "symlink", "symlinkat", "copy_file_range", "sendfile", "splice"}
    | {"io_uring_setup", "io_submit", "unlinkat", "renameat", "mkdirat", "truncate", "rmdir"}
)


class _Open:
    """An open file description: several descriptors may share it."""

    __slots__ = ("appends", "is_synced", "node", "offset")

    def __init__(self, node: Node, flags: str) -> None:
        self.node = node
        self.offset = 0
        self.appends = "O_APPEND" in flags
        #: Each write returns when it is durable.
        self.is_synced = "O_DSYNC" in flags or "O_SYNC" in flags


class _Answers:
    """A connection to a client: how many answers have begun to leave."""

    __slots__ = ("connection", "head", "left")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: Of the answer being sent: its head as far as sent, then how much is left of its body.
        self.head = b""
        self.left = 0


class Player:
    """Plays the moments of one phase after the other on ``model``."""

    def __init__(self, model: DiskModel, root: str) -> None:
        self.model = model
        self._root = root
        #: The kind of sync that does nothing from now on, as if it had been forgotten.
        self.forget: str | None = None
        self._phase = -1
        self._descriptors: dict[int, _Open | _Answers] = {}
        #: Of calls that have begun and not ended: serial of a write, or what a sync covers.
        self._begun: dict[int, int] = {}
        #: Which sectors a write makes durable by itself.
        self._covering: dict[int, range] = {}
        #: Answers begun, by connection.
        self.answers: dict[Connection, int] = {}
        self.syncs = 0
        self.writes = 0

    def next_phase(self) -> None:
        """The process is gone; another one begins."""
        self._phase += 1
        self._descriptors = {}
        self._begun = {}

    def play(self, moment: Moment) -> bool:
        """Whether the moment had anything to do with the disk or with an answer."""
        call = moment.call
        name = call.name
        if name in ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg"):
            return self._write(call, moment.is_end)
        if name in ("fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs"):
            return self._sync(call, moment.is_end)
        if not moment.is_end or call.result is None or call.result < 0:
            return False
        match name:
            case "open" | "openat" | "creat":
                return self._opened(call)
            case "close":
                self._descriptors.pop(_numbers(call)[0], None)
            case "dup" | "dup2" | "dup3":
                self._duplicate(call)
            case "fcntl" if "F_DUPFD" in call.text:
                self._duplicate(call)
            case "accept" | "accept4":
                self._accepted(call)
            case "lseek":
                opened = self._file(call)
                if opened is not None:
                    opened.offset = call.result
            case "ftruncate" | "fallocate":
                return self._resize(call)
            case "mkdir":
                path = self._inside(call.strings[0])
                if path is not None:
                    self.model.make_directory(path)
                    return True
            case "unlink":
                path = self._inside(call.strings[0])
                if path is not None:
                    self.model.remove(path)
                    return True
            case "rename":
                return self._rename(call)
            case "mmap":
                self._mapped(call)
            case _ if name in _REFUSED:
                assert not any(map(self._inside, call.strings)), f"{name} is not modelled: {call}"
        return False

    # Descriptors.

    def _opened(self, call: Call) -> bool:
        assert call.result is not None
        path = self._inside(call.strings[0])
        # A descriptor that a lost close would have freed is not ours any more.
        self._descriptors.pop(call.result, None)
        if path is None:
            return False
        node = self.model.find(path)
        changes = False
        if node is None:
            assert "O_CREAT" in call.text or call.name == "creat", f"opened from nowhere: {path}"
            node = self.model.create(path)
            changes = True
        elif isinstance(node, FileNode) and ("O_TRUNC" in call.text or call.name == "creat"):
            node.resize(self.model.tick(), 0)
            changes = True
        self._descriptors[call.result] = _Open(node, call.text)
        return changes

    def _duplicate(self, call: Call) -> None:
        assert call.result is not None
        opened = self._descriptors.get(_numbers(call)[0])
        if opened is None:
            self._descriptors.pop(call.result, None)
        else:
            self._descriptors[call.result] = opened

    def _accepted(self, call: Call) -> None:
        assert call.result is not None
        found = _PORT.search(call.text)
        assert found is not None, f"whose connection is this: {call.text}"
        self._descriptors[call.result] = _Answers((self._phase, int(found[1])))

    def _file(self, call: Call) -> _Open | None:
        opened = self._descriptors.get(_numbers(call)[0])
        return opened if isinstance(opened, _Open) else None

    def _inside(self, path: bytes) -> str | None:
        """The path relative to the root; None if it lies elsewhere."""
        text = path.decode("utf-8", "surrogateescape")
        if text == self._root:
            return ""
        if not text.startswith(self._root + "/"):
            return None
        return text.removeprefix(self._root + "/").rstrip("/")

    # Changes.

    def _write(self, call: Call, is_end: bool) -> bool:
        opened = self._descriptors.get(_numbers(call)[0])
        if isinstance(opened, _Answers):
            return self._answer(opened, call, is_end)
        if opened is None:
            return False
        node = opened.node
        assert isinstance(node, FileNode)
        assert call.name != "pwritev2", f"pwritev2 is not modelled: {call.text}"
        if not is_end:
            serial = self._begun[id(call)] = self.model.begin(node)
            data = b"".join(call.strings)
            if call.result is not None:
                data = data[: call.result]
            if call.name.startswith("pwrite"):
                offset = _numbers(call, after_strings=True)[-1]
            elif opened.appends:
                offset = node.size
            else:
                offset = opened.offset
            node.write(serial, offset, data)
            if not call.name.startswith("pwrite"):
                opened.offset = offset + len(data)
            self.writes += 1
            if opened.is_synced and data:
                sectors = range(
                    offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES + 1
                )
                self._covering[id(call)] = sectors
            return True
        serial = self._begun.pop(id(call))
        self.model.end(serial)
        if opened.is_synced:
            node.sync(serial, self._covering.pop(id(call), range(0)))
        return True

    def _answer(self, answers: _Answers, call: Call, is_end: bool) -> bool:
        data = b"".join(call.strings)
        if not is_end:
            if not answers.head and not answers.left and data:
                count = self.answers.get(answers.connection, 0)
                self.answers[answers.connection] = count + 1
                return True
            return False
        data = data[: call.result or 0]
        while data:
            if answers.left:
                taken = min(answers.left, len(data))
                answers.left -= taken
                data = data[taken:]
                continue
            answers.head += data
            head, end, body = answers.head.partition(b"\r\n\r\n")
            if not end:
                return False
            length = _LENGTH.search(head)
            answers.left = 0 if length is None else int(length[1])
            answers.head = b""
            data = body
        return False

    def _sync(self, call: Call, is_end: bool) -> bool:
        assert call.name not in ("sync", "syncfs", "sync_file_range"), f"not modelled: {call}"
        if call.name == "msync":
            return False
        opened = self._file(call)
        if opened is None:
            return False
        if not is_end:
            self._begun[id(call)] = self.model.covered(opened.node)
            return True
        until = self._begun.pop(id(call))
        if call.result != 0 or self._is_forgotten(opened.node):
            return True
        self.syncs += 1
        if isinstance(opened.node, FileNode):
            opened.node.sync(until)
        self.model.sync_names(opened.node, until)
        return True

    def _is_forgotten(self, node: Node) -> bool:
        if isinstance(node, DirectoryNode):
            return self.forget == NAMES
        # Of the log, the engine's own files: those that say which engine it is are a level higher.
        folder = "/log/.*/" if self.forget == LOG else "/tree/"
        return self.forget in (LOG, TREE) and re.search(folder, f"/{node.label}") is not None

    def _resize(self, call: Call) -> bool:
        opened = self._file(call)
        if opened is None:
            return False
        node = opened.node
        assert isinstance(node, FileNode)
        numbers = _numbers(call)
        if call.name == "ftruncate":
            node.resize(self.model.tick(), numbers[1])
        else:
            assert numbers[1] == 0, f"fallocate with a mode is not modelled: {call}"
            size = numbers[-2] + numbers[-1]
            if size > node.size:
                node.resize(self.model.tick(), size)
        return True

    def _rename(self, call: Call) -> bool:
        source, target = map(self._inside, call.strings)
        if source is None or target is None:
            return False
        self.model.rename(source, target)
        return True

    def _mapped(self, call: Call) -> None:
        if "MAP_SHARED" not in call.text or "PROT_WRITE" not in call.text:
            return
        opened = self._descriptors.get(_numbers(call)[-2])
        if isinstance(opened, _Open):
            assert isinstance(opened.node, FileNode)
            assert opened.node.label.endswith(_LOCK_FILE), (
                f"{opened.node.label} is written through a map, which is not modelled"
            )


def _numbers(call: Call, *, after_strings: bool = False) -> list[int]:
    """The decimal arguments; ``after_strings``: those behind the last string."""
    text = call.text.rpartition(") ")[0] or call.text
    if after_strings:
        text = text.rpartition('""')[2]
    return [int(number) for number in _NUMBER.findall(text)]
