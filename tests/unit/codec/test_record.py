from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.codec.record import Record, u8, u16, u32, u64
from hostel.codec.table import pack_table, unpack_table, zero_table
from hostel.errors import InvalidImage


class Sample(Record, endian="big"):
    magic: Annotated[bytes, 4]
    kind: u8
    flags: u16
    count: u32
    size: u64


class Little(Record, endian="little"):
    a: u16
    b: u32


samples = st.builds(
    Sample,
    magic=st.binary(min_size=4, max_size=4),
    kind=st.integers(0, 255),
    flags=st.integers(0, 2**16 - 1),
    count=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**64 - 1),
)


def test_fields_have_no_padding_and_known_offsets() -> None:
    assert Sample.SIZE == 19
    assert Sample.OFFSET == {"magic": 0, "kind": 4, "flags": 5, "count": 7, "size": 11}


def test_byte_order_is_the_class_s() -> None:
    assert Little(a=1, b=2).pack() == b"\1\0\2\0\0\0"
    assert Sample(magic=b"ABCD", kind=1, flags=2, count=3, size=4).pack()[5:7] == b"\0\2"


@given(samples, st.binary(max_size=9))
def test_unpack_is_the_inverse_of_pack_at_any_offset(sample: Sample, before: bytes) -> None:
    assert Sample.unpack(before + sample.pack() + b"rest", len(before)) == sample


@pytest.mark.parametrize(("data", "offset"), [(b"", 0), (bytes(18), 0), (bytes(19), 1), (bytes(40), -1)])
def test_short_data_is_an_invalid_image(data: bytes, offset: int) -> None:
    with pytest.raises(InvalidImage):
        Sample.unpack(data, offset)


def test_replace_changes_a_copy() -> None:
    first = Little(a=1, b=2)
    second = first.replace(b=3)
    assert (first.b, second.a, second.b) == (2, 1, 3)
    assert first != second
    assert hash(first) != hash(second)
    assert repr(second) == "Little(a=1, b=3)"


def test_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError):
        Little(a=1, b=2, c=3)  # type: ignore[call-arg]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_table_of_64_bits_is_big_endian(values: list[int]) -> None:
    data = b"".join(value.to_bytes(8, "big") for value in values)
    table = unpack_table(data)
    assert list(table) == values
    assert pack_table(table) == data
    assert list(table) == values  # packing leaves the table as it was


@pytest.mark.parametrize(("typecode", "width"), [("B", 1), ("H", 2), ("I", 4), ("Q", 8)])
def test_table_has_every_width(typecode: str, width: int) -> None:
    assert pack_table(unpack_table(bytes(range(8 * width)), typecode)) == bytes(range(8 * width))
    assert pack_table(zero_table(3, typecode)) == bytes(3 * width)
