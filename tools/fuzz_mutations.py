"""What ``fuzz`` does to requests: other types, other sizes, other depths, bytes that are no JSON.

A request is a tree of JSON values. ``mutate`` changes places in it and leaves a tree that may hold
what JSON cannot: ``Members`` is an object with a member twice, ``Raw`` is text as it stands.
``render`` makes bytes of it. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple


class Raw(NamedTuple):
    """Bytes that stand in the body as they are."""

    data: bytes


class Members(NamedTuple):
    """An object whose members may be there twice."""

    pairs: list[tuple[str, Any]]


_LIMITS = [0, -1, 1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 1.5, 1e300]
_NUMBERS = [
    "9" * 38, "9" * 39, "1" + "0" * 125, "1e125", "1e126", "-1e126", "1e-130", "1e-131", "1E+400",
    "0." + "0" * 129 + "1", "-0", "+1", "1.", ".5", " 1", "1 ", "1_000", "٣", "0x10", "NaN",
    "Infinity", "-inf", "", "-", ".", "e5", "1e", "1e99999999999", "1e-99999999999", "0e9999999999",
    "0" * 5000 + "1", "1" * 300_000, "1." + "0" * 300_000, "1\u0000", "１",
]  # fmt: skip
_BASE64 = ["!", "A", "AA", "AAA", "AB==", "AA=A", "====", "AA==\n", "-_-_", "A" * 400_000, "é==="]
_TEXTS = [
    "", " ", "\u0000", "a\u0000b", "\U0001f3b5", "\ufffe", "\u202e", "é" * 700, "x" * 256,
    "x" * 1025,
    "x" * 2049, "x" * 65_536, "x" * 409_600, "x" * 1_200_000, "#", ":", "a.b", "a[0]", "../..",
    "%s%n", "pk", "sk", "*", "ALL", "TRUE",
]  # fmt: skip
_RAW = [
    Raw(text)
    for text in (
        b"1e999", b"-1e999", b"1e-999", b"9" * 5000, b"0." + b"1" * 5000, b"01", b"-", b"NaN",
        b"Infinity", b"tru", b"", b",", b"{", b"]", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"',
        b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\\x"', b'"a\nb"', b'"', b"/**/1", b"'a'",
        b"{}{}", b'{"S":"a","S":"b"}', b'{"N":"1","N":"2"}',
    )
]  # fmt: skip
_TAGS = ["S", "N", "B", "SS", "NS", "BS", "M", "L", "NULL", "BOOL", "X", ""]
_WORDS = [
    "a", "#a", ":v", "(", ")", "AND", "OR", "NOT", "BETWEEN", "IN", "=", "<", "<>", ",", ".", "[0]",
    "[99999999999999999999]", "size(", "contains(", "attribute_exists(", "SET", "ADD", "REMOVE",
    "DELETE", "+", "-", "if_not_exists(", "list_append(", "pk", "\u0000", "é", "'", '"', "\t", "#",
]  # fmt: skip


_PLACES_MAX = 2000
_CONTENTS: dict[Any, list[str]] = {"N": _NUMBERS, "B": _BASE64, "S": _TEXTS}


def junk(rng: random.Random) -> Any:
    """Something that hardly belongs where it will stand."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(
            [None, True, False, 0, -1, 1.5, "", "a", [], {}, [[]], [None], {"": None}]
        )
    if kind == 1:
        return rng.choice(_LIMITS)
    if kind == 2:
        return rng.choice(_TEXTS)
    if kind == 3:
        return {"N": rng.choice(_NUMBERS)}
    if kind == 4:
        return {"B": rng.choice(_BASE64)}
    if kind == 5:
        return rng.choice(_RAW)
    if kind == 6:
        tag = rng.choice(["SS", "NS", "BS"])
        pool = {"SS": _TEXTS[:8], "NS": _NUMBERS[:16], "BS": _BASE64[:9]}[tag]
        return {tag: [rng.choice(pool) for _ in range(rng.choice([0, 1, 2, 3]))]}
    if kind == 7:
        return nested(rng)
    if kind == 8:
        return expression(rng)
    return {
        rng.choice(_TAGS): rng.choice(["a", "1", 1, True, False, None, [], {}, ["1"], {"a": {}}])
    }


def nested(rng: random.Random) -> Raw:
    """An attribute value, or JSON, that is nested so and so deeply."""
    depth = rng.choice([2, 15, 30, 31, 32, 33, 41, 100, 1000, 20_000, 200_000])
    opening, core, closing = rng.choice(
        [
            (b'{"L":[', b'{"S":"x"}', b"]}"),
            (b'{"M":{"a":', b'{"N":"1"}', b"}}"),
            (b"[", b"1", b"]"),
            (b'{"a":', b"{}", b"}"),
            (b'{"L":[', b"", b""),
        ]
    )
    return Raw(opening * depth + core + closing * depth)


def expression(rng: random.Random) -> str:
    """A text for a member that holds an expression: deep, long, or words in any order."""
    size = rng.choice([1, 5, 30, 100, 150, 299, 301, 2000, 20_000])
    kind = rng.randrange(9)
    if kind == 0:
        return "(" * size + "attribute_exists(pk)" + ")" * size
    if kind == 1:
        return "NOT " * size + "attribute_exists(pk)"
    if kind == 2:
        return " AND ".join(["pk = :v"] * size)
    if kind == 3:
        return "pk IN (" + ",".join([":v"] * size) + ")"
    if kind == 4:
        return "SET " + ",".join(f"a{number} = :v" for number in range(size))
    if kind == 5:
        return "a" + rng.choice([".b", "[0]", "[1].c"]) * size
    if kind == 6:
        return "SET a = " + "if_not_exists(a, " * size + ":v" + ")" * size
    if kind == 7:
        return "a = :v" + " " * rng.choice([4085, 4091, 4096, 1_000_000])
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 20)))


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(node, dict):
        for name, each in node.items():
            found += _places(each, (*path, name))
    elif type(node) is list:
        for index, each in enumerate(node):
            found += _places(each, (*path, index))
    return found


def mutate(rng: random.Random, request: dict[str, Any]) -> Any:
    """A copy of ``request`` with one to three places changed."""
    # The copy shares nothing, not even within: a change is in one place.
    root = [json.loads(json.dumps(request))]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = _places(root)
        if not 0 < len(places) <= _PLACES_MAX:
            # Nothing is left, or so much, and in part the same, that a change would be millions.
            break
        path = rng.choice(places)
        holder: Any = root
        for step in path[:-1]:
            holder = holder[step]
        _change(rng, root, holder, path[-1])
    return root[0] if root else {}


def _change(rng: random.Random, root: list[Any], holder: Any, last: Any) -> None:
    """Do something to ``holder[last]``."""
    old = holder[last]
    kind = rng.randrange(13)
    if last in _CONTENTS and rng.random() < 0.6:
        # Text of the right kind: what is wrong with it only the rules of its type say.
        holder[last] = rng.choice(_CONTENTS[last])
    elif kind <= 3:
        holder[last] = junk(rng)
    elif kind == 4:
        del holder[last]
    elif kind == 5 and isinstance(holder, dict):
        # In the place of the holder there is one with the member twice.
        new = rng.choice([old, junk(rng)])
        pairs = [*holder.items(), (str(last), new)]
        _replace(root, holder, Members(rng.sample(pairs, len(pairs))))
    elif kind == 6:
        other = rng.choice(_places(root))
        value: Any = root
        for step in other:
            value = value[step]
        if not _contains(value, holder):
            holder[last] = json.loads(render(value, strict=True))
    elif kind == 7:
        holder[last] = rng.choice(
            [
                [old],
                {"L": [old]},
                {"M": {"a": old}},
                {"S": old},
                [old] * (30 if len(str(old)) < 10_000 else 2),
            ]
        )
    elif kind == 8 and isinstance(old, dict) and len(old) == 1:
        # The content under another type's tag, or under two.
        ((_, content),) = old.items()
        tags = rng.sample(_TAGS, rng.choice([1, 1, 2]))
        holder[last] = dict.fromkeys(tags, content)
    elif kind == 9 and isinstance(holder, dict):
        size = rng.choice([1, 3, 300, 5000])
        content = rng.choice([{"S": "v"}, {"NULL": True}, {"N": "1"}, old])
        if len(str(content)) > 1000:
            size = 3
        for number in range(size):
            holder[f"{rng.choice(['m', '#m', ':m'])}{number}"] = content
    elif kind == 10 and isinstance(old, str):
        at = rng.randrange(len(old) + 1)
        holder[last] = rng.choice(
            [
                old[:at] + rng.choice(_WORDS) + old[at:],
                old[:at],
                old[:at] + old[at + 1 :],
                old.upper(),
                old * rng.choice([2, 50, 5000] if len(old) < 1000 else [2]),
                old + "\u0000",
            ]
        )
    elif kind == 11 and isinstance(old, str):
        holder[last] = expression(rng)
    elif kind == 12 and type(old) is list:
        holder[last] = old * rng.choice([2, 13, 100] if len(str(old)) < 10_000 else [2])
    else:
        holder[last] = rng.choice(_LIMITS) if isinstance(old, int) else junk(rng)


def _contains(node: Any, part: Any) -> bool:
    """Whether ``part`` is within ``node``: a tree must not hold itself."""
    if node is part:
        return True
    if isinstance(node, dict):
        return any(_contains(each, part) for each in node.values())
    return type(node) is list and any(_contains(each, part) for each in node)


def _replace(root: Any, old: Any, new: Any) -> None:
    if isinstance(root, dict):
        for name, each in root.items():
            if each is old:
                root[name] = new
                return
            _replace(each, old, new)
    elif type(root) is list:
        for index, each in enumerate(root):
            if each is old:
                root[index] = new
                return
            _replace(each, old, new)


def render(node: Any, *, strict: bool = False) -> bytes:
    """The body's bytes. ``strict`` leaves out what is no JSON (it becomes null)."""
    match node:
        case Raw():
            return b"null" if strict else node.data
        case Members():
            pairs: Any = dict(node.pairs).items() if strict else node.pairs
        case dict():
            pairs = node.items()
        case list():
            return b"[" + b",".join(render(each, strict=strict) for each in node) + b"]"
        case _:
            return json.dumps(node, ensure_ascii=False).encode("utf-8", "surrogatepass")
    members = (
        json.dumps(name).encode() + b":" + render(each, strict=strict) for name, each in pairs
    )
    return b"{" + b",".join(members) + b"}"


def scramble(rng: random.Random, body: bytes) -> bytes:
    """``body`` with some bytes changed, cut out or repeated."""
    data = bytearray(body)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.choice([1, 4]))
        elif kind == 2:
            del data[at : at + rng.choice([1, 5, 50])]
        elif kind == 3:
            data[at:at] = data[at : at + 20] * rng.choice([1, 10])
        else:
            data[at:at] = rng.choice([b'"', b"\\", b"{", b"}", b"[", b",", b":", b"\x00", b"null"])
    return bytes(data)
