"""Where the files of tar archives lie."""

from __future__ import annotations

import io
import tarfile

import pytest

from hostel.codec.tar import Member, members
from hostel.errors import InvalidImage
from support.ova import archive

FILES = {"a": b"x" * 1000, "empty": b"", "d/" + "long name " * 20 + "é": b"y" * 512, "b": b"z"}


def found(data: bytes, most: int = 100) -> list[Member]:
    return list(members(lambda offset, length: data[offset : offset + length], len(data), most))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_files_are_found_with_their_names(form: int) -> None:
    data = archive(FILES, form)
    assert {each.name: data[each.offset : each.offset + each.size] for each in found(data)} == FILES


def test_a_name_in_two_parts_is_put_together() -> None:
    name = "directory/" * 12 + "file"
    assert [each.name for each in found(archive({name: b"x"}))] == [name]


def test_what_is_no_file_is_passed_over() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("x")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("y"))
    assert [each.name for each in found(out.getvalue())] == ["y"]


def broken(at: int, value: bytes) -> bytes:
    data = bytearray(archive({"a": b"x" * 1000}))
    data[at : at + len(value)] = value
    total = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % total
    return bytes(data)


HOSTILE = {
    "no header": (b"nonsense" * 64, "in the tar header at 0x0 is none"),
    "a wrong checksum": (archive({"a": b"x"}).replace(b"a", b"b", 1), "The tar header at 0x0 is broken"),
    "a size beyond the end": (broken(124, b"77777777777\0"), "lies beyond its end: it is cut off"),
    "a size of base 256": (broken(124, b"\xff" * 12), "lies beyond its end: it is cut off"),
    "a size that is none": (broken(124, b"12x45678901\0"), "A number in the tar header at 0x0 is none"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(InvalidImage, match=message):
        found(data)


def test_long_names_and_records_are_bounded() -> None:
    for kind in (b"L", b"x"):
        data = bytearray(broken(156, kind))
        data[124:136] = b"00001000000\0"
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
        with pytest.raises(InvalidImage, match="has a name of 262144 bytes"):
            found(bytes(data))


def test_broken_records_are_refused() -> None:
    for records in (b"x" * 1000, b"9999 path=y\n", b"3 path=y\n", b"-1 a=b\n"):
        data = bytearray(broken(156, b"x"))
        data[512:1512] = records.ljust(1000, b"\0")
        with pytest.raises(InvalidImage):
            found(bytes(data))


def test_an_archive_of_more_files_than_are_looked_at_is_refused() -> None:
    with pytest.raises(InvalidImage, match="The archive has more than 3 files"):
        found(archive(FILES, tarfile.GNU_FORMAT), most=3)
