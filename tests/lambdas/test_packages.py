"""Zips: what is unpacked, and everything that must not be."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import InvalidRequest
from millstream.lambdas import packages
from millstream.lambdas.packages import Entry, check_package, code_digest, walk_package
from millstream.limits import PACKAGE_ENTRIES_MAX, PACKAGE_UNPACKED_BYTES_MAX


def packed(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED):
    written = io.BytesIO()
    with pytest.warns() if _repeats(members) else nullcontext():
        with zipfile.ZipFile(written, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return written.getvalue()


def _repeats(members) -> bool:
    names = [each if isinstance(each, str) else each.filename for each, _ in members]
    return len(set(names)) < len(names)


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def contents(package: bytes) -> dict[Entry, bytes]:
    return {entry: b"".join(pieces) for entry, pieces in walk_package(package)}


def refused(package: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_package(package)
    return str(caught.value)


def test_files_come_with_their_content():
    script = special("bin/tool", stat.S_IFREG)
    package = packed(("app.py", b"x = 1\n"), ("./lib//a.py", b""), ("lib/", b""), (script, b"!"))
    assert contents(package) == {
        Entry("app.py"): b"x = 1\n",
        Entry("lib/a.py"): b"",
        Entry("lib", is_directory=True): b"",
        Entry("bin/tool", executable=True): b"!",
    }
    assert check_package(package) == 7


def test_digest_is_lambdas():
    assert code_digest(b"") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        ("../x", "leads out"),
        ("a/../x", "leads out"),
        ("a/..", "leads out"),
        ("..", "leads out"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("a\\b", "backslash"),
        ("..\\x", "backslash"),
        ("a/.", "no proper name"),
        (".", "no proper name"),
        ("a" * 256, "too long"),
        ("/".join(["abcd"] * 300), "too long"),
    ],
)
def test_path_that_climbs_is_refused(name, why):
    assert why in refused(packed(("ok.py", b""), (name, b"x")))


def test_name_with_a_nul_is_refused():
    package = packed(("evilXpy", b"x")).replace(b"evilXpy", b"evil\0py")
    assert "no proper name" in refused(package)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFIFO, "neither"),
        (stat.S_IFCHR, "neither"),
        (stat.S_IFBLK, "neither"),
        (stat.S_IFSOCK, "neither"),
        (stat.S_IFDIR, "no proper name"),
    ],
)
def test_special_entry_is_refused_whatever_system_it_names(kind, why):
    for system in (0, 3):
        info = special("link", kind)
        info.create_system = system
        assert why in refused(packed((info, b"/etc/passwd")))


def test_same_path_twice_is_refused():
    assert "twice" in refused(packed(("a.py", b"1"), ("a.py", b"2")))
    assert "twice" in refused(packed(("d/a.py", b"1"), ("d/./a.py", b"2")))
    assert "a file and a directory" in refused(packed(("a", b"1"), ("a/b", b"2")))
    assert "a file and a directory" in refused(packed(("a/b/c", b"1"), ("a", b"2")))
    # Two words for one directory do no harm.
    check_package(packed(("a/", b""), ("a//", b""), ("a/b", b"")))


def test_directory_with_a_content_is_refused():
    package = packed(("dirX", b"content")).replace(b"dirX", b"dir/")
    assert "a directory with a content" in refused(package)


def test_encrypted_entry_is_refused():
    package = bytearray(packed(("a.py", b"1")))
    central = package.index(b"PK\x01\x02")
    package[central + 8] |= 1
    assert "encrypted" in refused(bytes(package))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(method):
    assert "another method" in refused(packed(("a.py", b"1" * 100), method=method))


@pytest.mark.parametrize("package", [b"", b"PK", b"not a zip" * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_is_refused(package):
    assert "zip" in refused(package)


def test_broken_content_is_refused():
    package = packed(("a.py", b"content"), method=zipfile.ZIP_STORED)
    assert refused(package.replace(b"content", b"c0ntent")).startswith("Could not unzip")


def test_bomb_is_stopped_by_what_comes_out_of_it():
    size = PACKAGE_UNPACKED_BYTES_MAX // 4
    members = [(f"{number}", bytes(size)) for number in range(4)]
    package = packed(*members)
    assert len(package) < 1024 * 1024
    assert check_package(package) == PACKAGE_UNPACKED_BYTES_MAX
    message = refused(packed(*members, ("more", b"x")))
    assert message == "Unzipped size must be smaller than 262144000 bytes"


def test_sizes_in_headers_are_not_believed(monkeypatch):
    monkeypatch.setattr(packages, "PACKAGE_UNPACKED_BYTES_MAX", 1000)
    package = bytearray(packed(("a", bytes(2000))))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", package, package.index(signature) + at, 10)
    # It says ten bytes; what comes out is neither ten nor what the checksum says.
    assert refused(bytes(package)).startswith("Could not unzip")


def test_too_many_entries_are_refused_before_they_are_read(monkeypatch):
    members = [(f"{number}", b"") for number in range(PACKAGE_ENTRIES_MAX + 1)]
    check_package(packed(*members[1:]))
    package = packed(*members)

    def unread(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(packages.zipfile, "ZipFile", unread)
    assert "more than 20000 entries" in refused(package)


def test_entries_of_a_zip_within_the_zip_do_not_count(monkeypatch):
    monkeypatch.setattr(packages, "PACKAGE_ENTRIES_MAX", 2)
    inner = packed(*[(f"{number}", b"") for number in range(10)])
    check_package(packed(("wheel.whl", inner), method=zipfile.ZIP_STORED))


def test_comment_at_the_end_is_no_harm():
    written = io.BytesIO(packed(("a.py", b"1")))
    with zipfile.ZipFile(written, "a") as archive:
        archive.comment = b"made by somebody"
    assert check_package(written.getvalue()) == 1


_NAMES = st.lists(st.sampled_from(["..", ".", "", "a", "b", "c:", "\\", "é", "x y"]), max_size=5)


@given(st.lists(st.tuples(_NAMES.map("/".join), st.binary(max_size=8)), max_size=4))
def test_whatever_is_accepted_stays_below_its_directory(members):
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        written = set()
        for name, content in members:
            if name and name not in written:
                written.add(name)
                archive.writestr(name, content)
    try:
        found = contents(package.getvalue())
    except InvalidRequest:
        return
    for entry in found:
        parts = entry.path.split("/")
        assert entry.path == "" or not {"", ".", ".."} & set(parts)
        assert "\\" not in entry.path
        assert ":" not in parts[0]


_GOOD = packed(("app.py", b"def handler(event, context): pass\n"), ("lib/", b""), ("lib/b", b"1"))


@given(st.lists(st.tuples(st.integers(0, len(_GOOD) - 1), st.integers(0, 255)), max_size=6))
def test_changed_bytes_are_read_or_refused_and_nothing_else(changes):
    package = bytearray(_GOOD)
    for at, value in changes:
        package[at] = value
    try:
        check_package(bytes(package))
    except InvalidRequest:
        pass
