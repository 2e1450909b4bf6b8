from __future__ import annotations

import random

import pytest

from hostel.img.segments import Kind, Segment, Window, windows

CELL = 4096
SIZE = 4 * CELL


def segments(seed: int) -> list[Segment]:
    rng = random.Random(seed)
    offset = 0
    found = []
    for _ in range(rng.randrange(1, 40)):
        length = rng.choice([512, 1024, 4096, 4608, 8192, 16384, 70000 // 512 * 512, 1 << 20])
        found.append(Segment(offset, length, rng.choice(list(Kind)), None, offset + 1000))
        offset += length
    return found


@pytest.mark.parametrize("whole_cells", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_windows_cover_all_segments_once_and_in_order(seed: int, whole_cells: bool) -> None:
    given = segments(seed)
    offset = 0
    for window in windows(iter(given), CELL, SIZE, whole_cells=whole_cells):
        assert window.offset == offset
        for segment in window.segments:
            assert segment.offset == offset
            assert segment.source_offset == offset + 1000
            origins = [origin for origin in given if origin.offset < segment.end and offset < origin.end]
            assert {origin.kind for origin in origins} == {segment.kind}
            assert len(origins) == 1 or window.kind is not Kind.DATA
            offset += segment.length
        assert window.end == offset
    assert offset == given[-1].end


@pytest.mark.parametrize("seed", range(30))
def test_cell_with_any_data_is_in_a_window_of_data(seed: int) -> None:
    given = segments(seed)
    data_cells = {
        cell
        for segment in given
        if segment.kind is Kind.DATA
        for cell in range(segment.offset // CELL, -(-segment.end // CELL))
    }
    for window in windows(iter(given), CELL, SIZE, whole_cells=False):
        cells = set(range(window.offset // CELL, -(-window.end // CELL)))
        if window.kind is Kind.DATA:
            assert cells <= data_cells
            assert window.length <= SIZE
            assert window.offset // SIZE == (window.end - 1) // SIZE
            assert window.offset % CELL == 0
        else:
            assert not cells & data_cells


def test_cell_that_mixes_zeroes_and_backing_is_data_only_where_cells_are_written_whole() -> None:
    given = [Segment(0, 512, Kind.ZERO), Segment(512, CELL - 512, Kind.BACKING)]
    assert [window.kind for window in windows(given, CELL, SIZE, whole_cells=False)] == [Kind.ZERO, Kind.BACKING]
    assert [window.kind for window in windows(given, CELL, SIZE, whole_cells=True)] == [Kind.DATA]


def test_cell_of_several_zero_segments_is_one_window() -> None:
    given = [Segment(0, CELL, Kind.DATA), Segment(CELL, 512, Kind.ZERO), Segment(CELL + 512, CELL - 512, Kind.ZERO)]
    found = [(window.offset, window.length) for window in windows(given, CELL, SIZE, whole_cells=True)]
    assert found == [(0, CELL), (CELL, CELL)]


def test_window_of_zeroes_is_cut_into_steps() -> None:
    segment = Segment(512, 2560, Kind.ZERO)
    window = Window(512, 2560, Kind.ZERO, (segment,))
    assert [(step.offset, step.length) for step in window.steps(1024)] == [(512, 1024), (1536, 1024), (2560, 512)]
