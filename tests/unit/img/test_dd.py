from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.errors import BlockError, ImageLocked
from hostel.img.dd import Range, dd, plan_target, select
from hostel.units import MiB
from support.images import content

DATA = random.Random(6).randbytes(3 * MiB) + bytes(MiB)


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ((1000, 512, None, 0), Range(0, 1000)),
        ((4096, 512, 2, 0), Range(0, 1024)),
        ((4096, 512, 100, 3), Range(1536, 4096)),
        ((4096, 1000, 3, 1), Range(1000, 3000)),
        ((4096, 512, 2, 2), Range(1024, 1024)),
        ((4096, 512, 2, 3), Range(1024, 1024, beyond=True)),
        ((4096, 512, None, 9), Range(4096, 4096, beyond=True)),
        ((4096, 1 << 30, 1 << 40, 1 << 40), Range(4096, 4096, beyond=True)),
        ((4096, 512, 0, 0), Range(0, 0)),
    ],
)
def test_blocks_are_counted_from_the_start_of_the_source(
    arguments: tuple[int, int, int | None, int], chosen: Range
) -> None:
    assert select(*arguments) == chosen


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_range_is_copied_with_its_zeroes(tmp_path: Path, format: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    chosen = Range(1000 * 512, 4 * MiB)
    with graph.open(str(source), "raw") as node:
        dd(node, chosen, plan_target(str(target), format, chosen.end - chosen.start))
    assert content(target, format) == DATA[chosen.start : chosen.end]
    assert target.stat().st_blocks * 512 >= chosen.end - chosen.start


def test_source_is_no_target_and_a_format_must_be_known(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    with (
        graph.open(str(source), "raw", force_share=True) as node,
        pytest.raises(ImageLocked, match="error while creating output image"),
    ):
        dd(node, Range(0, 512), plan_target(str(source), "raw", 512))
    assert source.read_bytes() == DATA
    with pytest.raises(BlockError, match=r"^Unknown file format$"):
        plan_target("x", "nonsense", 512)
