"""Measuring images before there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.options import OptionError, given_options
from hostel.block.powers import Measured
from hostel.errors import BlockError, UnsupportedFeature
from hostel.img.create import creatable, create, plan
from hostel.img.measure import bitmaps_length, measure, measuring, options


def measured(format: str, size: int, given: str = "") -> Measured:
    return measure(measuring(format), options(creatable(format), given_options(given)), size)


def test_raw_images_take_what_they_hold() -> None:
    assert measured("raw", 1000) == (1024, 1024)


def test_qcow2_images_take_their_metadata_too() -> None:
    # As qemu-img 7.2 measures them.
    assert measured("qcow2", 1 << 30) == (393216, 1074135040)
    assert measured("qcow2", 1 << 30, "preallocation=full") == (1074135040, 1074135040)


def test_a_copy_takes_what_was_measured_at_most(tmp_path: Path) -> None:
    source, copy = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 300_000 + bytes(700_000))
    driver = creatable("qcow2")
    with graph.open(str(source), "raw") as node:
        found = measure(measuring("qcow2"), options(driver, ()), node)
        assert bitmaps_length(node, options(driver, ())) is None
        create(plan(str(copy), "qcow2", node.length))
        with graph.open(str(copy), read_only=False) as target:
            target.pwrite(0, bytes(node.read(0, node.length)))
    assert copy.stat().st_size <= found.fully_allocated


@pytest.mark.parametrize(("given", "error"), [("foo=1", OptionError), ("cluster_size=3", BlockError)])
def test_options_that_make_no_sense_are_refused(given: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        measured("qcow2", 512, given)


def test_a_size_that_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(BlockError, match="try using a larger cluster size"):
        measured("qcow2", 1 << 60)


@pytest.mark.parametrize("format", ["vmdk", "foo"])
def test_a_format_that_cannot_be_measured_is_refused(format: str) -> None:
    with pytest.raises(UnsupportedFeature, match=f"Block driver '{format}' does not support size measurement"):
        measuring(format)
