"""Keys: which key values are allowed, and the bytes under which an item is stored.

A stored key is ``hash of the partition key (8 bytes) + partition key component(s) + sort key
component(s)``; an entry of a global index appends the item's table key components. Bytes compare
as DynamoDB orders: items of one partition key lie together, ordered by sort key, numbers
numerically, strings by UTF-8 bytes, binary as unsigned bytes. Components are prefix-free, so a
concatenation of components compares as the tuple of their values, and every Query is one
half-open interval of bytes.

Encoded keys are an on-disk format: nothing here may change for existing data.

The functions that encode assume values that passed ``model/values.py`` and the checks below; the
checks refuse in DynamoDB's words (the conformance suite, and AWS messages recorded by dynalite
and dynoxide for what the suite does not reach).
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Final

from ..errors import InvalidRequest
from ..limits import PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX
from . import numbers
from .schema import GlobalIndex, KeyAttribute, KeySchema, LocalIndex, Table
from .values import AttributeValue, Item, type_of, value_size_bytes

HASH_BYTES: Final = 8

# -- Components ----------------------------------------------------------------------------------
#
# Strings and binary: the bytes themselves, ended by 00. So that 00 ends and sorts lowest, a byte
# 00 within is written 01 01 and 01 is written 01 02; both stay below 02. Each byte is escaped for
# itself, so a prefix of a value is a prefix of its component. Numbers delimit themselves.

_END: Final = b"\x00"


def encode_component(kind: str, value: AttributeValue) -> bytes:
    """Encode one key value, ``{kind: content}`` with kind S, N or B; prefix-free, in order."""
    if kind == "N":
        return numbers.encode_ordered(value["N"])
    return _escaped(kind, value) + _END


def _escaped(kind: str, value: AttributeValue) -> bytes:
    content = value[kind]
    data: bytes = content.encode() if kind == "S" else a2b_base64(content)
    if b"\x01" in data:
        data = data.replace(b"\x01", b"\x01\x02")
    if b"\x00" in data:
        data = data.replace(b"\x00", b"\x01\x01")
    return data


def decode_component(kind: str, data: bytes, start: int) -> tuple[AttributeValue, int]:
    """The value of the component of this kind at ``start``, and the offset behind it."""
    if kind == "N":
        text, end = numbers.decode_ordered_at(data, start)
        return {"N": text}, end
    end = data.index(_END, start)
    content = data[start:end].replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
    if kind == "S":
        return {"S": content.decode()}, end + 1
    assert kind == "B", "a key attribute is S, N or B"
    return {"B": b2a_base64(content, newline=False).decode()}, end + 1


# -- Hashes --------------------------------------------------------------------------------------

# A cryptographic hash, because partitions split the space evenly and every shortcut was worse:
# CRCs are linear (same-length keys collide in families), and Python's own hash() differs from
# process to process. Copying a prepared state costs a third less than constructing one.
_HASH: Final = blake2b(digest_size=HASH_BYTES)
_TOP: Final = b"\xff" * HASH_BYTES
_BELOW_TOP: Final = b"\xff" * (HASH_BYTES - 1) + b"\xfe"


def partition_hash(hash_components: bytes) -> bytes:
    """The place of a partition key in the 64-bit hash space, 8 bytes big endian.

    The topmost hash is never given out, so that its bytes are above every key and can end the
    last partition's range.
    """
    state = _HASH.copy()
    state.update(hash_components)
    digest = state.digest()
    return digest if digest != _TOP else _BELOW_TOP


def hash_prefix(position: int) -> bytes:
    """The key bytes at which ``position`` of the hash space begins; 0 <= position <= 2**64.

    ``[hash_prefix(low), hash_prefix(high))`` are the keys of a partition or of a Scan's segment.
    """
    assert 0 <= position <= 1 << 64
    return position.to_bytes(HASH_BYTES, "big") if position < 1 << 64 else _TOP


def hash_position(key: bytes) -> int:
    """Where a stored key (or its first 8 bytes) lies in the hash space."""
    return int.from_bytes(key[:HASH_BYTES], "big")


# -- Whole keys ----------------------------------------------------------------------------------


def table_key(hash_component: bytes, range_component: bytes | None) -> bytes:
    """The stored key of an item; without a range component also the prefix of its collection."""
    state = _HASH.copy()
    state.update(hash_component)
    digest = state.digest()
    if digest == _TOP:
        digest = _BELOW_TOP
    if range_component is None:
        return digest + hash_component
    return digest + hash_component + range_component


def index_key(
    hash_components: Sequence[bytes], range_components: Sequence[bytes], item_key: bytes
) -> bytes:
    """The stored key of a global index's entry for the item whose stored key is ``item_key``.

    The item key's hash is left out: its components order and identify the item just as well.
    """
    hashed = b"".join(hash_components)
    return partition_hash(hashed) + hashed + b"".join(range_components) + item_key[HASH_BYTES:]


def successor(key: bytes) -> bytes:
    """The lowest bytes above ``key``: where reading goes on after it."""
    return key + b"\x00"


def prefix_end(prefix: bytes) -> bytes:
    """The lowest bytes above every key that begins with ``prefix``."""
    kept = prefix.rstrip(b"\xff")
    assert kept, "no end: every hash in a stored key is below the top"
    return kept[:-1] + bytes((kept[-1] + 1,))


def range_bounds(
    prefix: bytes, kind: str, operator: str | None, operands: Sequence[AttributeValue]
) -> tuple[bytes, bytes]:
    """The interval ``[low, high)`` of keys under ``prefix`` whose next component fits.

    ``prefix`` ends with a whole component (or a hash); ``kind`` is the type of the next one.
    ``operator`` is None (all of the prefix), one of ``= < <= > >=``, ``BETWEEN`` with two operands
    or ``begins_with`` on S or B. low == high means that nothing can fit.
    """
    if operator is None:
        return prefix, prefix_end(prefix)
    if operator == "begins_with":
        assert kind in "SB", "only strings and binary have prefixes"
        low = prefix + _escaped(kind, operands[0])
        return low, prefix_end(low)
    first = prefix + encode_component(kind, operands[0])
    match operator:
        case "=":
            return first, prefix_end(first)
        case "<":
            return prefix, first
        case "<=":
            return prefix, prefix_end(first)
        case ">":
            return prefix_end(first), prefix_end(prefix)
        case ">=":
            return first, prefix_end(prefix)
        case "BETWEEN":
            last = prefix_end(prefix + encode_component(kind, operands[1]))
            return first, max(first, last)
    raise AssertionError(f"no such operator on a key: {operator}")


# -- Checks --------------------------------------------------------------------------------------


class EmptyKeyValue(InvalidRequest):
    """A key attribute is an empty string or empty binary.

    A class of its own for transactions: of all that is wrong with keys this alone refuses the
    request as a whole, while the rest cancels the transaction (PR 60 of the conformance suite,
    recorded in four regions).
    """


_INVALID: Final = "One or more parameter values were invalid: "
_NOT_VALID: Final = "One or more parameter values are not valid. "
_SCHEMA_MISMATCH: Final = "The provided key element does not match the schema"
_EMPTY_KINDS: Final = {"S": "string", "B": "binary"}


def check_key(key: Item, schema: KeySchema) -> None:
    """Check the Key of a Get, Update or Delete: exactly the key attributes, well typed.

    ``key`` has passed ``values.check_item``. Raises InvalidRequest.
    """
    attributes = schema.attributes()
    if len(key) != len(attributes):
        raise InvalidRequest(_SCHEMA_MISMATCH)
    for attribute in attributes:
        value = key.get(attribute.name)
        if value is None or attribute.kind not in value:
            raise InvalidRequest(_SCHEMA_MISMATCH)
        _check_content(key, schema, attribute)


def check_item_keys(item: Item, schema: KeySchema, *, batch: bool = False) -> None:
    """Check the table's key attributes in an item to be put, which has passed ``check_item``.

    In a BatchWriteItem (``batch``) AWS reports a wrong type in the words of ``check_key``. Raises
    InvalidRequest.
    """
    for attribute in schema.attributes():
        value = item.get(attribute.name)
        if value is None:
            raise InvalidRequest(f"{_INVALID}Missing the key {attribute.name} in the item")
        if attribute.kind not in value:
            if batch:
                raise InvalidRequest(_SCHEMA_MISMATCH)
            raise InvalidRequest(
                f"{_INVALID}Type mismatch for key {attribute.name} "
                f"expected: {attribute.kind} actual: {type_of(value)}"
            )
        _check_content(item, schema, attribute)


def _check_content(item: Item, schema: KeySchema, attribute: KeyAttribute) -> None:
    """Refuse a table key's value that is empty or too long; its type is right."""
    content: str = item[attribute.name][attribute.kind]
    if not content:
        raise EmptyKeyValue(
            f"{_NOT_VALID}The AttributeValue for a key attribute cannot contain an empty "
            f"{_EMPTY_KINDS[attribute.kind]} value. Key: {attribute.name}"
        )
    # A short text needs no counting: four bytes a character is the most in any encoding.
    if len(content) * 4 > SORT_KEY_BYTES_MAX:
        if attribute in schema.hash:
            _check_hash_size(item, schema)
        else:
            _check_range_size(item, schema)


def _check_hash_size(item: Item, schema: KeySchema) -> None:
    if _size_bytes(item, schema.hash) > PARTITION_KEY_BYTES_MAX:
        # The missing space is AWS's.
        raise InvalidRequest(
            f"{_INVALID}Size of hashkey has exceeded the maximum size limit "
            f"of{PARTITION_KEY_BYTES_MAX} bytes"
        )


def _check_range_size(item: Item, schema: KeySchema) -> None:
    if _size_bytes(item, schema.range) > SORT_KEY_BYTES_MAX:
        raise InvalidRequest(
            f"{_INVALID}Aggregated size of all range keys has exceeded the size limit "
            f"of {SORT_KEY_BYTES_MAX} bytes"
        )


def _size_bytes(item: Item, attributes: tuple[KeyAttribute, ...]) -> int:
    """The size of those of the attributes that are present with the right type, in bytes."""
    return sum(
        value_size_bytes(item[attribute.name])
        for attribute in attributes
        if attribute.kind in item.get(attribute.name, ())
    )


def check_index_keys(item: Item, table: Table, updated: Collection[str] | None = None) -> None:
    """Check the attributes of an item that are keys of the table's secondary indexes.

    An absent attribute is fine, it only keeps the item out of the index; one that is present must
    have the index's type and be neither empty nor too long. For an UpdateItem ``updated`` names the
    attributes that it set: AWS leaves the others alone, whose values may be older than the index.
    Of several indexes that refuse, the alphabetically first is named, as AWS does. The table's own
    key attributes are left to ``check_item_keys``. Raises InvalidRequest.
    """
    if not table.global_indexes and not table.local_indexes:
        return
    refusals: list[tuple[str, InvalidRequest]] = []
    indexes: tuple[GlobalIndex | LocalIndex, ...] = (*table.global_indexes, *table.local_indexes)
    for index in indexes:
        try:
            check_index_key(item, index.name, index.key, table.key.names(), updated)
        except InvalidRequest as refusal:
            refusals.append((index.name, refusal))
    if refusals:
        raise min(refusals, key=lambda refusal: refusal[0])[1]


def check_index_key(
    item: Item,
    index_name: str,
    schema: KeySchema,
    table_key_names: Collection[str] = (),
    updated: Collection[str] | None = None,
) -> None:
    """``check_index_keys`` for one index."""
    judged = False
    for attribute in schema.attributes():
        name, kind = attribute.name, attribute.kind
        value = item.get(name)
        if value is None or name in table_key_names:
            continue
        if updated is not None and name not in updated:
            continue
        judged = True
        if kind not in value:
            raise InvalidRequest(
                f"{_INVALID}Type mismatch for Index Key {name} Expected: {kind} "
                f"Actual: {type_of(value)} IndexName: {index_name}"
            )
        if value[kind] == "":
            empty = (
                "The AttributeValue for a key attribute cannot contain an empty "
                f"{_EMPTY_KINDS[kind]} value."
            )
            if updated is None:
                raise EmptyKeyValue(
                    f"{_NOT_VALID}A value specified for a secondary index key is not supported. "
                    f"{empty} IndexName: {index_name}, IndexKey: {name}"
                )
            raise EmptyKeyValue(
                f"{_NOT_VALID}The update expression attempted to update a secondary index key to "
                f"a value that is not supported. {empty}"
            )
    if judged:
        _check_hash_size(item, schema)
        _check_range_size(item, schema)
