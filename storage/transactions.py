"""Which items of a partition are held by prepared transactions, and for how long.

Theory of operation (after "Distributed Transactions at Scale in Amazon DynamoDB", USENIX ATC 2023,
with one change). A transaction over several partitions is *prepared* in each: its conditions are
decided, what it will write is logged, and its items are held. If all could promise, the coordinator
makes the decision durable in the ledger and tells the partitions; if one could not, they are told
to forget it. Nobody ever waits for a held item: a transaction or a single write that meets one is
refused at once (so there are no deadlocks), and reads pass, seeing the item as it was.

The change: in the paper the coordinator gives the timestamp and a partition refuses a transaction
that is late. Here each partition proposes a lower *bound* with its promise, above everything it has
seen, and the transaction takes the highest: since its items are held from the bound on, their
versions still grow, and no transaction is ever refused for being late.

A single write may pass a transaction that holds its item but depends on nothing there (an
unconditional put or delete): it goes before it, at a version below the bound. Each bound leaves a
gap of ``TRANSACTION_GAP`` below it for such writes; the partition's *closed* timestamp, at or below
which nothing will be written any more, stays below the gaps of all that is prepared.

Pure state of one partition; owned by its ``TableState``. Invariant: a key is in ``_holders``
exactly while a transaction proposed or prepared here holds it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..limits import TRANSACTION_GAP
from .records import Prepared


class Transactions:
    """Prepared transactions of one partition."""

    __slots__ = ("_ending", "_holders", "_intended", "_passed", "durable", "prepared")

    def __init__(self) -> None:
        #: Transaction -> its promise, from its proposal until its end is proposed: what holds.
        self.prepared: dict[str, Prepared] = {}
        #: The same from when the promise is applied until its end is: what a position stores.
        self.durable: dict[str, Prepared] = {}
        #: Transactions whose end is proposed and not yet applied.
        self._ending: set[str] = set()
        #: Key -> the transaction that holds it.
        self._holders: dict[bytes, str] = {}
        #: Keys that a promise intends to write, until its end is applied, and by how many. Longer
        #: than they are held: between the end's proposal and its application the old row is read.
        self._intended: dict[bytes, int] = {}
        #: Key -> the version of the last write that passed the transaction holding it.
        self._passed: dict[bytes, int] = {}

    def holds(self, key: bytes) -> bool:
        """Whether some transaction holds ``key``, for writing or for a condition."""
        return key in self._holders

    def will_write(self, key: bytes) -> bool:
        """Whether some transaction intends to write ``key`` and may not have done it yet."""
        return key in self._intended

    def is_ending(self, transaction: str) -> bool:
        """Whether the end of ``transaction`` is proposed and not yet applied."""
        return transaction in self._ending

    def end(self, transaction: str) -> None:
        """The end of a prepared transaction is proposed: what comes later need not mind it."""
        self._ending.add(transaction)
        self._release(transaction)

    def apply_promise(self, promise: Prepared) -> None:
        """The promise is in the log; after a replay, this is where it begins to hold."""
        self.durable[promise.transaction] = promise
        if promise.transaction not in self._ending:
            self.hold(promise)

    def apply_end(self, transaction: str) -> None:
        """The end is in the log, and so was the promise before it."""
        promise = self.durable.pop(transaction)
        self._ending.discard(transaction)
        for intent in promise.intents:
            count = self._intended.pop(intent.key) - 1
            if count:
                self._intended[intent.key] = count
        self._release(transaction)

    def hold(self, promise: Prepared) -> None:
        """Hold the keys of ``promise``. Doing it again changes nothing."""
        if promise.transaction in self.prepared:
            return
        self.prepared[promise.transaction] = promise
        for intent in promise.intents:
            self._intended[intent.key] = self._intended.get(intent.key, 0) + 1
        for key in _keys(promise):
            assert self._holders.get(key, promise.transaction) == promise.transaction
            self._holders[key] = promise.transaction

    def _release(self, transaction: str) -> None:
        """Let go of what ``transaction`` holds, if anything."""
        promise = self.prepared.pop(transaction, None)
        if promise is not None:
            for key in _keys(promise):
                del self._holders[key]
                self._passed.pop(key, None)

    def version_for_passing(self, key: bytes, old_hlc: int) -> int | None:
        """A version at which a single write on the held ``key`` may go before its holder.

        ``old_hlc`` is the version of the item there now, or of its deletion as far as it is known
        (0: none). None if it may not.
        """
        promise = self.prepared[self._holders[key]]
        if key not in promise.passable:
            return None
        low = promise.bound - TRANSACTION_GAP
        version = max(old_hlc, low, self._passed.get(key, 0)) + 1
        if version >= promise.bound:
            return None
        self._passed[key] = version
        return version

    def closed_below(self) -> int | None:
        """Nothing prepared here can still cause a write at or below this; None if nothing is."""
        promises = {**self.durable, **self.prepared}
        bounds = [promise.bound for promise in promises.values()]
        return min(bounds) - TRANSACTION_GAP if bounds else None


def _keys(promise: Prepared) -> Iterable[bytes]:
    for intent in promise.intents:
        yield intent.key
    yield from promise.checked
