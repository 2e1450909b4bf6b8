"""Big tables of integers."""

import random
from array import array

import pytest

from hostel.codec.table import drop_zeroes_at_end, equal_entries, pack_table, unpack_table, zero_table


@pytest.mark.parametrize("typecode", ["I", "Q"])
def test_equal_entries_stop_where_one_by_one_they_would(typecode: str) -> None:
    chance = random.Random(1)
    table = array(typecode)
    for _ in range(60):
        value = chance.choice((0, 0, 1, 2, 0x100, 1 << 31))  # of which any byte may be the first that is not 0
        table.extend([value] * chance.choice((1, 1, 2, 3, 63, 64, 65, 575, 576, 577, 4096, 4097, 9000)))
    for _ in range(400):
        index = chance.randrange(len(table))
        end = chance.randrange(index + 1, len(table) + 1)
        expected = next((each for each in range(index, end) if table[each] != table[index]), end)
        assert equal_entries(table, index, end) == expected


def test_a_table_is_written_in_the_byte_order_that_was_asked_for() -> None:
    table = array("H", [0x0102, 0x0304])
    assert pack_table(table, "big") == b"\1\2\3\4"
    assert pack_table(table, "little") == b"\2\1\4\3"
    assert unpack_table(b"\1\2\3\4", "H", "big") == table
    assert unpack_table(b"\2\1\4\3", "H", "little") == table


def test_a_table_of_zeroes_has_its_entries() -> None:
    assert zero_table(3, "I") == array("I", [0, 0, 0])


@pytest.mark.parametrize("typecode", ["B", "I", "Q"])
@pytest.mark.parametrize("last", [1, 0x80, 0xFF])
def test_a_table_is_shortened_to_its_last_entry_that_is_not_zero(typecode: str, last: int) -> None:
    top = last << 8 * (array(typecode).itemsize - 1)
    for kept in ([], [last], [0, last], [last, 0, 0, top], [0, top]):
        table = array(typecode, [*kept, *[0] * 5])
        drop_zeroes_at_end(table)
        assert table == array(typecode, kept)
