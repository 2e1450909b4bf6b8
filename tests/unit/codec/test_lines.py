"""Lines from columns are what Python writes one by one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hostel.codec.lines import Part, Scratch, render

EDGES = (0, 1, 9, 10, 99, 9999, 10_000, 99_999_999, 10**18, 10**19 - 1, 10**19, (1 << 64) - 1, 15, 16, 0xFFFF, 1 << 16)


@pytest.mark.parametrize("seed", range(40))
def test_lines_are_what_format_writes(seed: int) -> None:
    rng = random.Random(f"lines {seed}")
    scratch = Scratch()
    for _ in range(3):
        count = rng.randrange(1, 200)
        limit = rng.choice((10, 10_000, 1 << 40, 1 << 64))
        rows = [
            (rng.choice(EDGES) if limit == 1 << 64 else rng.randrange(limit), rng.randrange(limit), rng.random() < 0.5)
            for _ in range(count)
        ]
        parts = (
            Part(b"{ start ", 0),
            Part(b", at ", 1, other=b", nowhere and a longer text"),
            Part(b" ", 1, base=16, width=rng.choice((0, 16))),
            Part(b"}\n"),
        )
        columns = [np.array([row[index] for row in rows], np.uint64) for index in range(2)]
        kinds = np.array([row[2] for row in rows])
        expected = "".join(
            f"{{ start {start}{f', at {at}' if kind else ', nowhere and a longer text'} "
            f"{(f'{at:#x}' if at else '0').ljust(parts[2].width)}}}\n"
            for start, at, kind in rows
        )
        assert render(parts, columns, kinds, scratch).tobytes().decode() == expected


def test_a_number_wider_than_its_field_is_whole() -> None:
    columns = [np.array([0x123456789], np.uint64)]
    lines = render([Part(column=0, base=16, width=4), Part(b"|")], columns, np.array([True]), Scratch())
    assert lines.tobytes() == b"0x123456789|"


@pytest.mark.parametrize("digits", range(1, 20))
@pytest.mark.parametrize("base", [10, 16])
def test_lines_of_one_length_are_what_format_writes(base: int, digits: int) -> None:
    rng = random.Random(f"{base} {digits}")
    low = min(base ** (digits - 1), 1 << 63)
    values = [low, *(rng.randrange(low, min(low * base, 1 << 64)) for _ in range(100)), min(low * base, 1 << 64) - 1]
    columns = [np.array(column, np.uint64) for column in (values, [7] * len(values))]
    parts = (Part(b"at ", 0, base=base, width=18), Part(b" of ", 1), Part(b"!\n"))
    kinds = np.array([rng.random() < 0.5 for _ in values])
    expected = "".join(f"at {format(value, '#x' if base == 16 else 'd').ljust(18)} of 7!\n" for value in values)
    assert render(parts, columns, kinds, Scratch()).tobytes().decode() == expected
