"""What lays several images together: "blkverify", "blklogwrites", "quorum"."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph, incident
from hostel.block.blockdev import from_options
from hostel.block.extent import Status
from hostel.block.filters.blkverify import first_difference
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.errors import BlockError, Mismatch, UnsupportedFeature

SIZE = 64 * 1024


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three empty disks."""
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(bytes(SIZE))
    return paths


# ---- blkverify


def test_equal_copies_are_read_and_written(files: list[Path]) -> None:
    with graph.open(f"blkverify:{files[0]}:{files[1]}", "raw", read_only=False) as node:
        node.pwrite(5, b"x" * 1000)
        node.write_zeroes(100, 10)
        node.discard(0, 512)
        assert node.read(5, 10) == b"x" * 10
        assert node.filename == f"blkverify:{files[0]}:{files[1]}"
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_difference_fails_the_read_and_says_where(files: list[Path]) -> None:
    files[0].write_bytes(bytes(1000) + b"\1" + bytes(SIZE - 1001))
    with graph.open(f"blkverify:{files[0]}:{files[1]}", "raw") as node:
        node.read(0, 1000)
        with pytest.raises(Mismatch, match="read offset=512 bytes=1024 contents mismatch at offset 1000"):
            node.read(512, 1024)


def test_a_name_needs_both_images(files: list[Path]) -> None:
    with pytest.raises(OptionError, match="blkverify requires raw copy and original image path"):
        graph.open(f"blkverify:{files[0]}", "raw")


@pytest.mark.parametrize("place", [0, 1, 511, 512, 999])
def test_the_first_difference_is_found(place: int) -> None:
    other = bytearray(1000)
    other[place:] = b"\1" * (1000 - place)
    assert first_difference(bytes(1000), other) == place
    assert first_difference(other, bytes(other)) == -1


# ---- blklogwrites


def logged(disk: Path, log: Path, **options: str) -> BlockNode:
    tree = {"driver": "blklogwrites", "file.driver": "raw", "file.file.filename": str(disk)}
    tree |= {"log.driver": "file", "log.filename": str(log)}
    tree |= {key.replace("_", "-"): value for key, value in options.items()}
    return graph.open(from_options(tree), read_only=False)


def entries(log: Path) -> list[tuple[int, int, int, bytes]]:
    """The log's entries: sector, sectors, flags, data."""
    data = log.read_bytes()
    magic, version, count, size = struct.unpack_from("<QQQI", data)
    assert (magic, version) == (0x6A736677736872, 1)
    found = []
    place = size
    for _ in range(count):
        sector, sectors, flags, length = struct.unpack_from("<QQQQ", data, place)
        assert length == 0
        stored = 0 if flags & 4 else sectors * size
        found.append((sector, sectors, flags, data[place + size : place + size + stored]))
        place += size + stored
    return found


def test_each_request_is_an_entry(files: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    with logged(files[0], log) as node:
        node.pwrite(512, b"\1" * 1024)
        node.write_zeroes(4096, 512)
        node.discard(8192, 512)
        node.flush()
        node.pwrite(3, b"\2")
    first = bytearray(512)
    first[3] = 2
    assert entries(log) == [
        (1, 2, 0, b"\1" * 1024), (8, 1, 0, bytes(512)), (16, 1, 4, b""), (0, 0, 1, b""), (0, 1, 0, bytes(first)),
    ]  # fmt: skip


def test_a_log_is_continued(files: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    with logged(files[0], log, log_sector_size="4k") as node:
        node.pwrite(0, b"\1" * 4096)
    with logged(files[0], log, log_append="on") as node:
        node.pwrite(4096, b"\2" * 4096)
    assert entries(log) == [(0, 1, 0, b"\1" * 4096), (1, 1, 0, b"\2" * 4096)]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {"log-sector-size": "1000"}, "Invalid log sector size 1000"),
        (b"", {"log-sector-size": "16M"}, "Invalid log sector size 16777216"),
        (b"", {"log-super-update-interval": "0"}, "Invalid log superblock update interval 0"),
        (b"", {"log-append": "on", "log-sector-size": "512"}, "are mutually exclusive"),
        (b"x" * 512, {"log-append": "on"}, "Invalid log superblock magic"),
        (struct.pack("<QQQI", 0x6A736677736872, 2, 0, 512), {"log-append": "on"}, "Unsupported log version 2"),
        (struct.pack("<QQQI", 0x6A736677736872, 1, 9, 512), {"log-append": "on"}, "The log ends before its entry 0"),
        (b"", {"log-mark": "x"}, "Block format 'blklogwrites' does not support the option 'log-mark'"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused(
    files: list[Path], tmp_path: Path, content: bytes, options: dict[str, str], message: str
) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        logged(files[0], log, **options)


# ---- quorum


def quorum(files: list[Path], *, read_only: bool = False, **options: str) -> BlockNode:
    tree = {"driver": "quorum", **{key.replace("_", "-"): value for key, value in options.items()}}
    for index, path in enumerate(files):
        tree |= {f"children.{index}.driver": "raw", f"children.{index}.file.filename": str(path)}
    return graph.open(from_options(tree), read_only=read_only)


def test_writes_go_to_all_copies(files: list[Path]) -> None:
    with quorum(files, vote_threshold="2") as node:
        node.pwrite(7, b"x" * 600)
        node.write_zeroes(100, 10)
        node.flush()
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_the_majority_wins_and_can_be_written_back(files: list[Path]) -> None:
    files[1].write_bytes(b"\1" * SIZE)
    with quorum(files, vote_threshold="2") as node:
        assert node.read(0, 512) == bytes(512)
    assert files[1].read_bytes() == b"\1" * SIZE
    with quorum(files, vote_threshold="2", rewrite_corrupted="on") as node:
        assert node.read(0, 512) == bytes(512)
    assert files[1].read_bytes() == bytes(512) + b"\1" * (SIZE - 512)


def test_without_a_majority_the_read_fails(files: list[Path]) -> None:
    files[1].write_bytes(b"\1" * SIZE)
    files[2].write_bytes(b"\2" * SIZE)
    told: list[tuple[str, Mapping[str, Any]]] = []
    with (
        quorum(files, vote_threshold="2", read_only=True) as node,
        incident.listening(lambda *what: told.append(what)),
        pytest.raises(BlockError, match="Input/output error"),
    ):
        node.read(100, 512)
    assert told == [("QUORUM_FAILURE", {"reference": "", "sector-num": 0, "sectors-count": 2})]
    with quorum(files, vote_threshold="2", read_pattern="fifo", read_only=True) as node:
        assert node.read(0, 512) == bytes(512)


def test_two_copies_are_verified(files: list[Path]) -> None:
    files[1].write_bytes(bytes(700) + b"\1" * (SIZE - 700))
    message = "quorum: offset=512 bytes=512 contents mismatch at offset 700"
    with quorum(files[:2], vote_threshold="2", blkverify="on", read_only=True) as node:
        node.read(0, 700)
        with pytest.raises(Mismatch, match=message):
            node.read(512, 512)


def test_only_what_all_copies_have_as_holes_is_zero(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"")
        with path.open("r+b") as stream:
            stream.truncate(SIZE)
    with files[1].open("r+b") as stream:
        stream.seek(16384)
        stream.write(b"\1" * 4096)
    with quorum(files, vote_threshold="2", read_only=True) as node:
        found = [(each.offset, each.length, bool(each.status & Status.ZERO)) for each in node.extents()]
        assert found == [(0, 16384, True), (16384, 4096, False), (20480, SIZE - 20480, True)]


def test_copies_of_different_sizes_are_refused(files: list[Path]) -> None:
    files[0].write_bytes(bytes(512))
    with pytest.raises(BlockError, match="Could not refresh total sector count") as caught:
        quorum(files, vote_threshold="2", read_only=True)
    assert caught.value.hint == f"The copies have different sizes: 512, {SIZE} bytes."


def test_a_quorum_is_not_resized(files: list[Path]) -> None:
    with quorum(files, vote_threshold="2") as node, pytest.raises(UnsupportedFeature):
        node.resize(SIZE * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Parameter 'vote-threshold' expects a value >= 1"),
        ({"vote_threshold": "4"}, "threshold may not exceed children count"),
        ({"vote_threshold": "2", "read_pattern": "x"}, "Please set read-pattern as fifo or quorum"),
        ({"vote_threshold": "2", "blkverify": "on"}, "blkverify=on can only be set if there are exactly two files"),
    ],
)
def test_options_that_make_no_sense_are_refused(files: list[Path], options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        quorum(files, read_only=True, **options)
    with pytest.raises(OptionError, match="Number of provided children must be 1 or more"):
        quorum([], read_only=True, vote_threshold="1")
