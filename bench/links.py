"""What packing a batch for another region costs: ``python -m millstream.bench.links``.

CPU a 1 KB item to encode and compress a batch, to inflate and decode it, and how much smaller it
gets, for the codec of ``globaltables/packing.py`` beside others: zlib-ng, and lz4 where it is
installed. Two kinds of items: orders with words, names and numbers, and text without any pattern.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

import msgspec
import zstandard
from zlib_ng import zlib_ng

from ..storage.arrivals import Arrival

ITEM_BYTES = 1024
ITEMS = (62, 100)
ROUNDS = 20
WORDS = (
    *("the", "of", "order", "blue", "shipment", "customer", "pending", "warehouse", "delivered"),
    *("invoice", "return", "express", "note", "fragile", "item", "gift", "large", "small", "north"),
    *("south", "river", "street", "avenue", "parcel", "depot", "truck", "driver", "morning"),
    *("evening", "urgent", "standard", "carrier", "label", "code", "paid", "open", "closed"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"

Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def order(chance: random.Random) -> dict[str, object]:
    """An item of a shop, but for its note."""
    lines = [
        {"M": {"sku": {"S": f"SKU-{chance.randrange(10**8):08d}"}, "quantity": {"N": "3"}}}
        for _ in range(6)
    ]
    return {
        "pk": {"S": f"customer#{chance.randrange(10**6):06d}"},
        "sk": {"S": f"order#{chance.getrandbits(128):032x}"},
        "status": {"S": chance.choice(["PENDING", "PAID", "SHIPPED"])},
        "total": {"N": str(chance.randrange(10**5))},
        "created": {"S": f"2025-11-17T12:{chance.randrange(10, 60)}:07.{chance.randrange(999)}Z"},
        "lines": {"L": lines},
    }


def body(chance: random.Random, kind: str) -> bytes:
    """An item of 1 KB as DynamoDB JSON."""
    item: dict[str, object] = {"pk": {"S": f"{chance.getrandbits(64):016x}"}}
    item = order(chance) if kind == "orders" else item
    room = ITEM_BYTES - len(json.dumps(item, separators=(",", ":"))) - len(',"note":{"S":""}')
    words = WORDS if kind == "orders" else LETTERS
    text = (" " if kind == "orders" else "").join(chance.choices(words, k=room))[:room]
    return json.dumps(item | {"note": {"S": text}}, separators=(",", ":")).encode()


def batch(chance: random.Random, kind: str, count: int) -> list[Arrival]:
    """What a partition would send of such items."""
    start = 1_700_000_000_000 << 16
    return [
        Arrival(chance.randbytes(8) + b"customer", body(chance, kind), 900, start + n * 999, 1)
        for n in range(count)
    ]


def codecs() -> dict[str, Codec]:
    """By name, what compresses and what inflates."""
    inflate = zstandard.ZstdDecompressor().decompress
    found: dict[str, Codec] = {"none": (bytes, bytes)}
    found["zlib-ng 1"] = (lambda raw: zlib_ng.compress(raw, 1), zlib_ng.decompress)
    try:
        import lz4.block
    except ImportError:
        print("lz4 is not installed", file=sys.stderr)
    else:
        found["lz4"] = (lz4.block.compress, lz4.block.decompress)
    for level in (-1, 1, 3):
        found[f"zstandard {level}"] = (zstandard.ZstdCompressor(level=level).compress, inflate)
    return found


def cpu_microseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """The least of several rounds: what disturbs only ever adds."""
    least = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        for _ in range(repeats):
            work()
        least = min(least, (time.thread_time_ns() - start) / repeats / 1000)
    return least


def measure(name: str, codec: Codec, arrivals: list[Arrival]) -> str:
    """A row of the table."""
    compress, inflate = codec
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(list[Arrival]).decode
    raw = encode(arrivals)
    packed = compress(raw)
    assert inflate(packed) == raw
    there = cpu_microseconds(lambda: compress(encode(arrivals))) / len(arrivals)
    back = cpu_microseconds(lambda: decode(inflate(packed))) / len(arrivals)
    smaller = len(raw) / len(packed)
    return f"  {name:13} {smaller:5.2f} times smaller, {there:5.2f} us, {back:5.2f} us back"


def main() -> None:
    """Print the table."""
    for kind in ("orders", "no pattern"):
        for count in ITEMS:
            arrivals = batch(random.Random(7), kind, count)
            print(f"{count} items, {kind}")
            for name, codec in codecs().items():
                print(measure(name, codec, arrivals))


if __name__ == "__main__":
    main()
