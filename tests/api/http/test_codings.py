"""Content codings, and that a bomb is not inflated."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.api.codings import inflate
from millstream.api.errors import (
    RequestEntityTooLarge,
    SerializationException,
    UnsupportedMediaTypeException,
)


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


CODINGS = [
    (b"gzip", gzip.compress),
    (b"x-gzip", gzip.compress),
    (b" GZIP ", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", bare),
    (b"identity", bytes),
]


@given(st.sampled_from(CODINGS), st.binary(max_size=2000))
def test_body_is_what_was_compressed(coding, data):
    name, compress = coding
    assert inflate(compress(data), name) == data


@pytest.mark.parametrize("name", [b"br", b"zstd", b"gzip, gzip", b"compress"])
def test_other_codings_are_refused(name):
    with pytest.raises(UnsupportedMediaTypeException):
        inflate(b"x", name)


@pytest.mark.parametrize(("name", "compress"), CODINGS[:1] + CODINGS[3:5])
def test_damage_is_refused(name, compress):
    whole = compress(b"abc" * 100)
    for damaged in (b"", whole[:-1], whole + b"x", b"\xff" + whole[1:], whole + whole):
        with pytest.raises(SerializationException):
            inflate(damaged, name)


def test_limit_is_exact():
    assert inflate(gzip.compress(b"a" * 1000), b"gzip", 1000) == b"a" * 1000
    with pytest.raises(RequestEntityTooLarge):
        inflate(gzip.compress(b"a" * 1001), b"gzip", 1000)


def test_bomb_is_not_inflated():
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(RequestEntityTooLarge):
            inflate(bomb, b"gzip", 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@given(st.sampled_from([b"gzip", b"deflate"]), st.binary(max_size=200))
def test_random_bytes_never_escape(name, data):
    try:
        inflate(data, name)
    except SerializationException:
        pass
