"""Runtime options of qcow2, and what preallocated metadata shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.formats.qcow2.geometry import Geometry
from hostel.block.formats.qcow2.runtime import RUNTIME_OPTIONS, check_runtime_options
from hostel.errors import BlockError
from support.qcow2 import create, create_file
from support.qcow2 import header as image_header


def _check(given: dict[str, str], version: int = 3) -> None:
    header = image_header(create(64 << 20, {"compat": "0.10" if version == 2 else "1.1"}))
    check_runtime_options(RUNTIME_OPTIONS.convert(given), header, Geometry.of(header))


@pytest.mark.parametrize(
    ("given", "version", "message"),
    [
        ({"overlap-check": "some"}, 3, "Unsupported value 'some' for qcow2 option 'overlap-check'"),
        ({"overlap-check.template": "some"}, 3, "Unsupported value 'some' for qcow2 option 'overlap-check'"),
        ({"overlap-check": "all", "overlap-check.template": "none"}, 3, "Conflicting values for qcow2 options"),
        ({"lazy-refcounts": "on"}, 2, "Lazy refcounts require"),
    ],
)
def test_options_that_contradict_are_refused(given: dict[str, str], version: int, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        _check(given, version)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"overlap-check": "none", "overlap-check.template": "none"},
        {"lazy-refcounts": "on", "cache-size": "1M", "pass-discard-request": "off", "overlap-check.active-l1": "off"},
    ],
)
def test_options_that_qemu_takes_are_taken(given: dict[str, str]) -> None:
    _check(given)


def test_preallocated_clusters_are_zeroes_where_the_host_has_holes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_file(path, 4 << 20, {"preallocation": "metadata"})
    with graph.open(str(path)) as node:
        assert {extent.status for extent in node.extents()} == {Status.DATA | Status.ZERO | Status.ALLOCATED}
    with graph.open(str(path), read_only=False) as node:
        node.pwrite(1 << 20, b"x" * 65536)
    with graph.open(str(path)) as node:
        written = [extent for extent in node.extents() if not extent.status & Status.ZERO]
    assert [(extent.offset, extent.length) for extent in written] == [(1 << 20, 65536)]


def test_without_preallocation_holes_of_the_host_are_not_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_file(path, 1 << 20)
    with graph.open(str(path), read_only=False) as node:
        node.pwrite(0, b"x" * (1 << 20))
    with graph.open(str(path)) as node:
        assert {extent.status for extent in node.extents()} == {Status.DATA | Status.ALLOCATED}
