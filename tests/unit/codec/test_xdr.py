"""XDR: layouts, bounds, and bytes that are none."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.codec.xdr import Types
from hostel.errors import LocalProtocolError, RemoteProtocolError

TYPES = Types("""
point   x:i32 y:i32
value   1=i32 2=str 3=point
named   name:str
        at:point?
""")
EVERYTHING = TYPES.codec(
    "a:u8 b:i64 c:f64 t:str u:uuid o:str? p:named l:point<3> n:u64<4> v:value d:bytes<5> e:bytes[3] f:chars<4> "
    "g:chars[3] s:str<2> r:i32[2] w:value<2> q:point?"
)
SAMPLE = (
    255, -(2**63), 1.5, "aé", b"0123456789abcdef", None, ("n", (1, 2)), [(3, 4), (5, 6)], [2**64 - 1], (2, "z"),
    b"12345", b"abc", b"\xff\0a", b"xyz", ["", "long enough"], [7, -7], [(1, 5), (3, (8, 9))], (0, 0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "values", "data"),
    [
        ("a:i32 b:u64", (-1, 2), "ffffffff 0000000000000002"),
        ("t:str", ("abcde",), "00000005 6162636465000000"),
        ("t:str", ("",), "00000000"),
        ("o:str?", (None,), "00000000"),
        ("o:i32?", (0,), "00000001 00000000"),
        ("l:i32<5>", ([1, 2],), "00000002 00000001 00000002"),
        ("l:i32[2]", ([1, 2],), "00000001 00000002"),
        ("e:bytes[5]", (b"abcde",), "6162636465000000"),
        ("f:chars<9>", (b"a\xff",), "00000002 00000061 ffffffff"),
        ("g:chars[2]", (b"ab",), "00000061 00000062"),
        ("v:value", ((3, (1, 2)),), "00000003 00000001 00000002"),
        ("", (), ""),
    ],
)
def test_value_has_the_layout_of_the_rfc(fields: str, values: tuple[Any, ...], data: str) -> None:
    codec = TYPES.codec(fields)
    assert codec.pack(values) == bytes.fromhex(data)
    assert codec.unpack(bytes.fromhex(data)) == values


def test_everything_comes_back() -> None:
    assert EVERYTHING.unpack(EVERYTHING.pack(SAMPLE)) == SAMPLE


def test_structure_is_a_named_tuple() -> None:
    (named,) = TYPES.codec("n:named").unpack(TYPES.codec("n:named").pack((("x", (1, 2)),)))
    assert (named.name, named.at.y) == ("x", 2)


def test_offset_is_where_reading_begins() -> None:
    assert TYPES.codec("a:i32").unpack(b"header" + bytes([0, 0, 0, 9]), 6) == (9,)


def test_text_that_is_no_utf8_survives() -> None:
    codec = TYPES.codec("t:str")
    (text,) = codec.unpack(b"\0\0\0\2a\xff\0\0")
    assert codec.pack((text,)) == b"\0\0\0\2a\xff\0\0"


@pytest.mark.parametrize(
    ("fields", "data", "reason"),
    [
        ("a:i32", "000000", "ends too early"),
        ("a:i32", "0000000000", "1 bytes are left over"),
        ("t:str", "00000004 616263", "ends too early"),
        ("t:str", "00000003 616263", "ends too early"),
        ("t:str", "ffffffff", "more than the"),
        ("t:str", "00400000", "ends too early"),
        ("t:str", "00000002 61000000", "NUL"),
        ("l:point<3>", "00000004" + "00" * 32, "4 are more than the 3"),
        ("l:point<99>", "00000063" + "00" * 32, "ends too early"),
        ("l:i64<99>", "00000002" + "00" * 8, "ends too early"),
        ("d:bytes<5>", "00000006" + "00" * 8, "6 are more than the 5"),
        ("f:chars<5>", "00000002 00000061", "ends too early"),
        ("g:chars[2]", "00000061", "ends too early"),
        ("e:bytes[5]", "6162636465", "ends too early"),
        ("v:value", "00000009", "9 is no case"),
        ("v:value<2>", "00000001 00000001", "ends too early"),
        ("o:point?", "00000001 00000001", "ends too early"),
        ("", "00", "left over"),
    ],
)
def test_bytes_that_are_none_are_refused(fields: str, data: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=f"Unable to decode message payload: .*{reason}"):
        TYPES.codec(fields).unpack(bytes.fromhex(data))


@pytest.mark.parametrize("end", range(len(EVERYTHING.pack(SAMPLE))))
def test_every_truncation_is_refused(end: int) -> None:
    with pytest.raises(RemoteProtocolError):
        EVERYTHING.unpack(EVERYTHING.pack(SAMPLE)[:end])


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_mean_something(data: bytes) -> None:
    try:
        values = EVERYTHING.unpack(data)
    except RemoteProtocolError:
        return
    assert EVERYTHING.unpack(EVERYTHING.pack(values)) == values


@given(place=st.integers(0, len(EVERYTHING.pack(SAMPLE)) // 4 - 1), word=st.integers(0, 2**32 - 1))
def test_any_changed_word_is_refused_or_means_something(place: int, word: int) -> None:
    data = bytearray(EVERYTHING.pack(SAMPLE))
    struct.pack_into(">I", data, 4 * place, word)
    try:
        values = EVERYTHING.unpack(bytes(data))
    except RemoteProtocolError:
        return
    # Not-a-number is not itself, so what is packed is compared.
    assert EVERYTHING.pack(EVERYTHING.unpack(EVERYTHING.pack(values))) == EVERYTHING.pack(values)


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ("a:i32", (2**31,)),
        ("a:u32", (-1,)),
        ("a:i32", ("1",)),
        ("a:i32", ()),
        ("a:i32", (1, 2)),
        ("t:str", (None,)),
        ("t:str", ("x" * (2**22 + 1),)),
        ("d:bytes<5>", (b"123456",)),
        ("e:bytes[5]", (b"1234",)),
        ("g:chars[2]", (b"123",)),
        ("l:point<1>", ([(1, 2), (3, 4)],)),
        ("l:i32[2]", ([1],)),
        ("l:point<1>", ([(1,)],)),
        ("v:value", ((9, 1),)),
    ],
)
def test_value_that_does_not_fit_is_our_own_error(fields: str, values: tuple[Any, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="Unable to encode message payload"):
        TYPES.codec(fields).pack(values)
