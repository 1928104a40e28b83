"""DynamoDB numbers: decimal text of at most 38 significant digits, exact in every operation.

A number is its canonical text everywhere in millstream: plain decimal notation, no sign on zero, no
leading zeros, no trailing zeros in a fraction ("-42", "0.5", "100"). Equal numbers are therefore
equal strings. ``normalise`` makes canonical text from a request's; every other function here takes
canonical text and may assume it. No float is ever involved.

Range and precision: "Supported data types and naming rules in Amazon DynamoDB", Number:
1E-130 to 9.9999999999999999999999999999999999999E+125 and the negatives, and zero.

The machine is pure; the cost of every function is linear in the length of its text, whatever the
text is (an exponent of a million digits is never turned into an integer).
"""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Final

from ..errors import InvalidRequest
from ..limits import NUMBER_DIGITS_MAX, NUMBER_MAGNITUDE_MAX, NUMBER_MAGNITUDE_MIN

# Already canonical and short enough to be in range without counting: at most 37 digits. Most
# numbers in real requests are of this shape, so that one match is all their validation.
_CANONICAL: Final = re.compile(
    r"-?[1-9][0-9]{0,18}(?:\.[0-9]{0,17}[1-9])?|0|-?0\.[0-9]{0,35}[1-9]"
).fullmatch
_ANY: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?)([0-9]+))?").fullmatch

# An exponent beyond this overflows or underflows whatever mantissa a request can carry: a mantissa
# cannot shift the point by as much as 10**12 places, for it would be a text of a terabyte.
_EXPONENT_DIGITS_MAX: Final = 12

_OVERFLOW: Final = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)
_UNDERFLOW: Final = (
    "Number underflow. Attempting to store a number with magnitude smaller than supported range"
)
_TOO_PRECISE: Final = (
    f"Attempting to store more than {NUMBER_DIGITS_MAX} significant digits in a Number"
)

# Wide enough that the sum of the largest and the smallest number is exact (256 digits).
_EXACT: Final = Context(prec=300, Emax=MAX_EMAX, Emin=MIN_EMIN)


def normalise(text: str) -> str:
    """Return the canonical text of a number as a request spells it.

    Accepts an optional sign, digits with an optional point ("5.", ".5") and an optional exponent;
    no spaces, no other digits than ASCII's. Raises InvalidRequest with DynamoDB's wording.
    """
    if text.isdigit() and len(text) <= NUMBER_DIGITS_MAX and text[0] != "0" and text.isascii():
        return text
    if _CANONICAL(text):
        return text
    match = _ANY(text)
    if match is None:
        raise _not_numeric(text)
    sign, whole, fraction, exponent_sign, exponent_text = match.groups("")
    if not whole and not fraction:
        raise _not_numeric(text)
    written = whole + fraction
    digits = written.lstrip("0")
    if not digits:
        return "0"
    # The value is 0.DIGITS times ten to the power `point`, with DIGITS beginning with no zero.
    point = len(whole) - (len(written) - len(digits))
    digits = digits.rstrip("0")
    if exponent_text:
        exponent_text = exponent_text.lstrip("0")
        if len(exponent_text) > _EXPONENT_DIGITS_MAX:
            raise InvalidRequest(_UNDERFLOW if exponent_sign == "-" else _OVERFLOW)
        exponent = int(exponent_text or "0")
        point += -exponent if exponent_sign == "-" else exponent
    return _format(sign == "-", digits, point)


def _not_numeric(text: str) -> InvalidRequest:
    if not text:
        return InvalidRequest("The parameter cannot be converted to a numeric value")
    return InvalidRequest(f"The parameter cannot be converted to a numeric value: {text}")


def _format(negative: bool, digits: str, point: int) -> str:
    """Canonical text of 0.DIGITS * 10**point; ``digits`` has no zero at either end."""
    if point - 1 > NUMBER_MAGNITUDE_MAX:
        raise InvalidRequest(_OVERFLOW)
    if point - 1 < NUMBER_MAGNITUDE_MIN:
        raise InvalidRequest(_UNDERFLOW)
    if len(digits) > NUMBER_DIGITS_MAX:
        raise InvalidRequest(_TOO_PRECISE)
    if point <= 0:
        text = "0." + "0" * -point + digits
    elif point >= len(digits):
        text = digits + "0" * (point - len(digits))
    else:
        text = digits[:point] + "." + digits[point:]
    return "-" + text if negative else text


def _split(text: str) -> tuple[bool, str, int]:
    """(negative, digits, point) of canonical non-zero text: the inverse of ``_format``."""
    negative = text[0] == "-"
    if negative:
        text = text[1:]
    whole, _, fraction = text.partition(".")
    if not fraction:
        return negative, whole.rstrip("0"), len(whole)
    if whole != "0":
        return negative, whole + fraction, len(whole)
    digits = fraction.lstrip("0")
    return negative, digits, len(digits) - len(fraction)


def compare(a: str, b: str) -> int:
    """-1, 0 or 1 as the number ``a`` is below, equal to or above ``b``."""
    if a == b:
        return 0
    # Decimal's constructor and comparison are exact, whatever the precision of a context.
    return -1 if Decimal(a) < Decimal(b) else 1


def sort_key(text: str) -> Decimal:
    """A value by which canonical numbers sort numerically, for ``sorted(..., key=sort_key)``."""
    return Decimal(text)


def add(a: str, b: str) -> str:
    """The exact sum. Raises InvalidRequest when it is out of range or needs over 38 digits."""
    return _from_decimal(_EXACT.add(Decimal(a), Decimal(b)))


def subtract(a: str, b: str) -> str:
    """The exact difference ``a - b``. Raises like ``add``."""
    return _from_decimal(_EXACT.subtract(Decimal(a), Decimal(b)))


def _from_decimal(value: Decimal) -> str:
    return normalise(str(value))


def size_bytes(text: str) -> int:
    """What a number costs in an item's size, in bytes: 1 to 22.

    One byte, one more for a minus sign, and one for every two significant digits, where the digits
    before the point and those behind it are rounded up separately. The documentation says "1 byte
    per two significant digits + 1" and is silent about sign and point; this rule was measured on
    AWS by others, who bisected the 400 KB limit (dynoxide, CHANGELOG).
    """
    if text.isdigit():
        # A natural number: all its digits are before the point. Zero has no significant digit.
        return 1 + (len(text.rstrip("0")) + 1) // 2
    sign = 0
    if text[0] == "-":
        sign = 1
        text = text[1:]
    whole, _, fraction = text.partition(".")
    if not fraction:
        whole = whole.rstrip("0")
    elif whole == "0":
        return 1 + sign + (len(fraction.lstrip("0")) + 1) // 2
    return 1 + sign + (len(whole) + 1) // 2 + (len(fraction) + 1) // 2


# -- Order-preserving bytes ----------------------------------------------------------------------
#
# Two bytes, big endian, carry sign and magnitude: 256 is zero, above it the positive numbers by
# rising `point` (-129 .. 126, so 257 .. 512), below it the negative ones mirrored (255 .. 0). Then
# follow the digits in pairs, one byte each as pair + 1 (1 .. 100), and a terminator 0, which sorts
# below every pair; for a negative number all of these bytes are complemented. The terminator makes
# the encoding self-delimiting, so that components can be concatenated and still sort as tuples.

_POINT_LOWEST: Final = NUMBER_MAGNITUDE_MIN + 1
_POINT_HIGHEST: Final = NUMBER_MAGNITUDE_MAX + 1
_ZERO_HEAD: Final = 256
_ZERO: Final = _ZERO_HEAD.to_bytes(2, "big")
_POSITIVE_OFFSET: Final = _ZERO_HEAD + 1 - _POINT_LOWEST
_NEGATIVE_OFFSET: Final = _ZERO_HEAD - 1 + _POINT_LOWEST
assert _POINT_HIGHEST + _POSITIVE_OFFSET == 512, "the range of magnitudes must fill the head"
assert _NEGATIVE_OFFSET - _POINT_HIGHEST == 0, "the mirrored range must fill the head"

# bytes.fromhex packs two decimal digits into one byte (binary-coded decimal); these tables map that
# byte to the byte stored. Translation runs in C, which makes digits cheap.
_PAIR_OF_BCD: Final = bytes(
    10 * (byte >> 4) + (byte & 15) + 1 if (byte >> 4) < 10 and (byte & 15) < 10 else 0
    for byte in range(256)
)
_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))
_NEGATIVE_PAIR_OF_BCD: Final = _PAIR_OF_BCD.translate(_COMPLEMENT)
_BCD_OF_PAIR: Final = bytes(
    16 * ((byte - 1) // 10) + (byte - 1) % 10 if 1 <= byte <= 100 else 255 for byte in range(256)
)


def encode_ordered(text: str) -> bytes:
    """Bytes that sort as the numbers do; 2 to 22 of them, self-delimiting."""
    if text == "0":
        return _ZERO
    negative, digits, point = _split(text)
    pairs = bytes.fromhex(digits if len(digits) % 2 == 0 else digits + "0")
    if negative:
        head = _NEGATIVE_OFFSET - point
        return head.to_bytes(2, "big") + pairs.translate(_NEGATIVE_PAIR_OF_BCD) + b"\xff"
    head = _POSITIVE_OFFSET + point
    return head.to_bytes(2, "big") + pairs.translate(_PAIR_OF_BCD) + b"\x00"


def decode_ordered(data: bytes) -> str:
    """The canonical text whose ``encode_ordered`` is ``data``."""
    text, end = decode_ordered_at(data, 0)
    assert end == len(data), "bytes after an encoded number"
    return text


def decode_ordered_at(data: bytes, start: int) -> tuple[str, int]:
    """Decode the number that begins at ``start``; returns it and the offset behind it."""
    head = int.from_bytes(data[start : start + 2], "big")
    start += 2
    if head == _ZERO_HEAD:
        return "0", start
    assert 0 <= head <= 512, "no such magnitude"
    negative = head < _ZERO_HEAD
    end = data.index(b"\xff" if negative else b"\x00", start)
    pairs = data[start:end].translate(_COMPLEMENT) if negative else data[start:end]
    digits = pairs.translate(_BCD_OF_PAIR).hex().rstrip("0")
    point = _NEGATIVE_OFFSET - head if negative else head - _POSITIVE_OFFSET
    return _format(negative, digits, point), end + 1
