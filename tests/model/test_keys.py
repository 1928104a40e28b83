"""Keys: bytes that order as DynamoDB does, intervals of them, and what no key may be."""

from __future__ import annotations

from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.model.keys import (
    check_index_key,
    check_index_keys,
    check_item_keys,
    check_key,
    decode_component,
    encode_component,
    hash_position,
    hash_prefix,
    index_key,
    partition_hash,
    prefix_end,
    range_bounds,
    successor,
    table_key,
)
from millstream.model.numbers import normalise
from millstream.model.schema import (
    GlobalIndex,
    KeyAttribute,
    KeySchema,
    LocalIndex,
    Projection,
    Status,
    Table,
)


def base64(data: bytes) -> str:
    return b64encode(data).decode()


# Few distinct bytes, those with a meaning among them, so that prefixes and ties are common.
strings = st.text("\x00\x01\x02a\u00ff\U0001f600", max_size=4)
binaries = st.binary(max_size=2) | st.lists(st.sampled_from(b"\x00\x01\x02\xff"), max_size=4).map(
    bytes
)
decimals = st.one_of(
    st.integers(-120, 120).map(Decimal),
    st.decimals(-2, 2, places=2),
    st.decimals(-(10**9), 10**9, places=7),
)
values = {
    "S": strings.map(lambda text: ({"S": text}, text.encode())),
    "B": binaries.map(lambda data: ({"B": base64(data)}, data)),
    "N": decimals.map(lambda number: ({"N": normalise(str(number))}, number)),
}


@st.composite
def two_tuples(draw: st.DrawFn) -> tuple[list[tuple[str, Any, Any]], list[tuple[str, Any, Any]]]:
    """Two tuples of key values of the same kinds: (kind, attribute value, Python's oracle)."""
    kinds = draw(st.lists(st.sampled_from("SNB"), min_size=1, max_size=4))
    left = [(kind, *draw(values[kind])) for kind in kinds]
    right = [
        same if draw(st.booleans()) else (kind, *draw(values[kind]))
        for kind, same in zip(kinds, left, strict=True)
    ]
    return left, right


@given(two_tuples())
def test_components_order_as_tuples(pair: Any) -> None:
    encoded = [b"".join(encode_component(kind, value) for kind, value, _ in side) for side in pair]
    oracle = [[plain for _, _, plain in side] for side in pair]
    assert (encoded[0] < encoded[1]) == (oracle[0] < oracle[1])
    assert (encoded[0] == encoded[1]) == (oracle[0] == oracle[1])


@given(two_tuples())
def test_components_delimit_themselves(pair: Any) -> None:
    left, _ = pair
    data = b"head" + b"".join(encode_component(kind, value) for kind, value, _ in left)
    start = 4
    for kind, value, _ in left:
        decoded, start = decode_component(kind, data, start)
        assert decoded == value
    assert start == len(data)


@given(st.sampled_from("SNB").flatmap(lambda kind: st.tuples(st.just(kind), *[values[kind]] * 3)))
def test_bounds_hold_exactly_what_fits(case: Any) -> None:
    kind, (low_value, low), (high_value, high), (value, plain) = case
    prefix = table_key(encode_component("S", {"S": "pk"}), None)
    key = prefix + encode_component(kind, value)
    fits = {
        None: True,
        "=": plain == low,
        "<": plain < low,
        "<=": plain <= low,
        ">": plain > low,
        ">=": plain >= low,
        "BETWEEN": low <= plain <= high,
    }
    if kind != "N":
        fits["begins_with"] = plain.startswith(low)
    for operator, expected in fits.items():
        start, end = range_bounds(prefix, kind, operator, [low_value, high_value])
        assert start <= end
        # With and without a further component behind, as in an index entry.
        for candidate in (key, key + encode_component("B", {"B": base64(b"\xff\xff")})):
            assert (start <= candidate < end) == expected
        assert not start <= prefix_end(prefix) < end


def test_bounds_of_a_collection() -> None:
    prefix = table_key(encode_component("S", {"S": "pk"}), None)
    assert range_bounds(prefix, "S", None, []) == (prefix, prefix_end(prefix))
    longer = table_key(encode_component("S", {"S": "pk2"}), None)
    assert not prefix <= longer < prefix_end(prefix)
    with pytest.raises(AssertionError, match="no such operator"):
        range_bounds(prefix, "S", "<>", [{"S": "a"}])


@given(st.binary(min_size=1, max_size=5).filter(lambda data: data.strip(b"\xff")), st.binary())
def test_prefix_end_and_successor(prefix: bytes, rest: bytes) -> None:
    end = prefix_end(prefix)
    assert prefix + rest < end
    assert not end.startswith(prefix)
    assert prefix < successor(prefix) <= prefix + b"\x00" + rest


def test_hash_space() -> None:
    assert hash_prefix(0) == b"\x00" * 8
    assert hash_prefix(1 << 63) == b"\x80" + b"\x00" * 7
    top = hash_prefix(1 << 64)
    assert hash_prefix((1 << 64) - 2) + b"\xff" * 3000 < top
    key = table_key(encode_component("S", {"S": "pk"}), encode_component("N", {"N": "1"}))
    assert hash_prefix(hash_position(key)) == key[:8]
    assert key[:8] == partition_hash(encode_component("S", {"S": "pk"}))


def test_hashes_spread_over_partitions() -> None:
    """Sequential keys are the common case: 16 even ranges get even shares of them."""
    shares = [0] * 16
    for i in range(8000):
        shares[partition_hash(encode_component("S", {"S": f"user#{i}"}))[0] >> 4] += 1
    assert all(400 < share < 600 for share in shares)


def test_the_format_on_disk_is_frozen() -> None:
    """Changing any of these bytes loses every existing database."""
    assert encode_component("S", {"S": "a\x00b\x01"}).hex() == "610101620102" + "00"
    assert encode_component("B", {"B": "AAH/"}).hex() == "01010102ff" + "00"
    assert encode_component("N", {"N": "-42.5"}).hex() == "007cd4cc" + "ff"
    assert encode_component("N", {"N": "0"}).hex() == "0100"
    assert encode_component("N", {"N": "1230"}).hex() == "01860d1f" + "00"
    assert partition_hash(b"a\x00").hex() == "4dd0bb1c45b748c1"


def test_index_entries_of_equal_keys_differ_by_table_key() -> None:
    city = encode_component("S", {"S": "Oslo"})
    items = [table_key(encode_component("S", {"S": pk}), None) for pk in ("a", "b")]
    entries = [index_key([city], [], item) for item in items]
    assert entries == [partition_hash(city) + city + item[8:] for item in items]
    assert entries[0] != entries[1]


S_PK = KeyAttribute("pk", "S")
COMPOSITE = KeySchema(hash=(S_PK,), range=(KeyAttribute("sk", "N"),))
BINARY_RANGE = KeySchema(hash=(S_PK,), range=(KeyAttribute("sk", "B"),))
MISMATCH = "The provided key element does not match the schema"
EMPTY_KEY = (
    "One or more parameter values are not valid. "
    "The AttributeValue for a key attribute cannot contain an empty {} value. Key: {}"
)
LONG_HASH = (
    "One or more parameter values were invalid: "
    "Size of hashkey has exceeded the maximum size limit of2048 bytes"
)
LONG_RANGE = (
    "One or more parameter values were invalid: "
    "Aggregated size of all range keys has exceeded the size limit of 1024 bytes"
)


def refusal(check: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InvalidRequest) as raised:
        check(*arguments, **options)
    return str(raised.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({}, MISMATCH),
        ({"pk": {"S": "a"}}, MISMATCH),
        ({"pk": {"S": "a"}, "other": {"N": "1"}}, MISMATCH),
        ({"pk": {"S": "a"}, "sk": {"N": "1"}, "x": {"S": "b"}}, MISMATCH),
        ({"pk": {"N": "1"}, "sk": {"N": "1"}}, MISMATCH),
        ({"pk": {"S": ""}, "sk": {"N": "1"}}, EMPTY_KEY.format("string", "pk")),
        ({"pk": {"S": "a" * 2049}, "sk": {"N": "1"}}, LONG_HASH),
        ({"pk": {"S": "\u00e9" * 1025}, "sk": {"N": "1"}}, LONG_HASH),
    ],
)
def test_a_key_is_exactly_the_schema(key: Any, message: str) -> None:
    assert refusal(check_key, key, COMPOSITE) == message


def test_good_keys() -> None:
    check_key({"pk": {"S": "\u00e9" * 1024}, "sk": {"N": "1" * 38}}, COMPOSITE)
    check_key({"pk": {"S": "a"}, "sk": {"B": base64(b"x" * 1024)}}, BINARY_RANGE)
    check_item_keys({"pk": {"S": "a"}, "sk": {"N": "1"}, "x": {"L": []}}, COMPOSITE)


def test_range_keys_that_are_empty_or_long() -> None:
    for data, message in ((b"", EMPTY_KEY.format("binary", "sk")), (b"x" * 1025, LONG_RANGE)):
        key = {"pk": {"S": "a"}, "sk": {"B": base64(data)}}
        assert refusal(check_key, key, BINARY_RANGE) == message
        assert refusal(check_item_keys, key, BINARY_RANGE) == message


def test_an_item_to_put_has_its_keys() -> None:
    invalid = "One or more parameter values were invalid: "
    item: Any = {"x": {"S": "a"}}
    assert refusal(check_item_keys, item, COMPOSITE) == invalid + "Missing the key pk in the item"
    item = {"pk": {"S": "a"}}
    assert refusal(check_item_keys, item, COMPOSITE) == invalid + "Missing the key sk in the item"
    item = {"pk": {"NULL": True}, "sk": {"N": "1"}}
    expected = "Type mismatch for key pk expected: S actual: NULL"
    assert refusal(check_item_keys, item, COMPOSITE) == invalid + expected
    assert refusal(check_item_keys, item, COMPOSITE, batch=True) == MISMATCH


def global_index(name: str, attribute: str, kind: str) -> GlobalIndex:
    schema = KeySchema(hash=(KeyAttribute(attribute, kind),))
    return GlobalIndex(name, schema, Projection("ALL"), 0, (), Status.ACTIVE)


INDEXED = Table(
    namespace="",
    name="table",
    table_id="",
    status=Status.ACTIVE,
    created_ms=0,
    key=COMPOSITE,
    attribute_kinds={},
    tree=0,
    partitions=(),
    global_indexes=(global_index("zeta", "gk", "S"), global_index("beta", "bk", "B")),
    local_indexes=(
        LocalIndex("alpha", KeySchema((S_PK,), (KeyAttribute("gk", "S"),)), Projection("ALL"), 0),
    ),
)


def put(**attributes: Any) -> Any:
    return {"pk": {"S": "a"}, "sk": {"N": "1"}, **attributes}


def test_index_keys() -> None:
    check_index_keys(put(), INDEXED)
    check_index_keys(put(gk={"S": "x"}, bk={"B": "QQ=="}), INDEXED)
    # Both "zeta" and "alpha" are keyed by gk: the alphabetically first is named.
    assert refusal(check_index_keys, put(gk={"N": "1"}), INDEXED) == (
        "One or more parameter values were invalid: "
        "Type mismatch for Index Key gk Expected: S Actual: N IndexName: alpha"
    )
    assert refusal(check_index_keys, put(bk={"B": ""}), INDEXED) == (
        "One or more parameter values are not valid. A value specified for a secondary index key "
        "is not supported. The AttributeValue for a key attribute cannot contain an empty binary "
        "value. IndexName: beta, IndexKey: bk"
    )
    assert refusal(check_index_keys, put(gk={"S": "x" * 1025}), INDEXED) == LONG_RANGE
    assert refusal(check_index_keys, put(bk={"B": base64(b"x" * 2049)}), INDEXED) == LONG_HASH


def test_an_update_is_judged_by_what_it_touched() -> None:
    old = put(gk={"N": "1"})
    check_index_keys(old, INDEXED, updated={"other"})
    check_index_keys({**old, "bk": {"B": "QQ=="}}, INDEXED, updated={"bk"})
    assert "Type mismatch for Index Key gk" in refusal(check_index_keys, old, INDEXED, {"gk"})
    assert refusal(check_index_keys, put(gk={"S": ""}), INDEXED, {"gk"}) == (
        "One or more parameter values are not valid. The update expression attempted to update a "
        "secondary index key to a value that is not supported. The AttributeValue for a key "
        "attribute cannot contain an empty string value."
    )


def test_sizes_of_several_range_attributes_add_up() -> None:
    schema = KeySchema((S_PK,), (KeyAttribute("a", "S"), KeyAttribute("b", "S")))
    check_index_key(put(a={"S": "x" * 512}, b={"S": "y" * 512}), "index", schema)
    item = put(a={"S": "x" * 512}, b={"S": "y" * 513})
    assert refusal(check_index_key, item, "index", schema) == LONG_RANGE
