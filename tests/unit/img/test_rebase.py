from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.errors import BlockError
from hostel.img.rebase import change_backing, check_change, find_in_chain, rebase
from hostel.units import MiB
from support.images import apply, below, content, make, scatter, write
from support.memory import Entry, FaultyDriver, Kind, LoggedDriver, MemoryDriver
from support.qcow2 import attach, check, check_file, create

SIZE = 3 * MiB


class Disk(MemoryDriver):
    """A disk of a fixed size."""

    name = "raw"
    supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS


def disk(data: bytes) -> BlockNode:
    return BlockNode(Disk(data), "disk", read_only=True)


def noise(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def variant(data: bytes | bytearray, seed: int) -> bytes:
    """The same disk with a few places changed."""
    changed = bytearray(data)
    apply(changed, scatter(random.Random(seed), len(data), 12))
    return bytes(changed)


@pytest.mark.parametrize(
    "options", [{}, {"cluster_size": 512}, {"compat": "0.10"}, {"cluster_size": 65536, "extended_l2": True}]
)
@pytest.mark.parametrize("new_size", [SIZE, SIZE // 2 + 512, 2 * SIZE, None])
@pytest.mark.parametrize("old_size", [SIZE, SIZE // 2 - 512, 2 * SIZE])
def test_content_is_the_same_on_the_new_backing_image(
    old_size: int, new_size: int | None, options: dict[str, Value]
) -> None:
    old = noise(1, old_size)
    new = None if new_size is None else variant(below(noise(1, old_size), new_size), 2)
    image = MemoryDriver(create(SIZE, {**options, "backing_file": "old", "backing_fmt": "raw"}))
    expected = below(old, SIZE)
    with attach(image, backing=old) as node:
        for offset, data in scatter(random.Random(3), SIZE, 8).items():
            part = bytes(data) if isinstance(data, int) else data
            node.pwrite(offset, part)
            expected[offset : offset + len(part)] = part
        rebase(node, None if new is None else disk(new))
        assert node.read(0, SIZE) == expected
        change_backing(node, None if new is None else "new", None if new is None else "raw")
    with attach(MemoryDriver(image.data), read_only=True, backing=new) as node:
        assert node.read(0, SIZE) == expected
        assert [reference.filename for reference in node.driver.references()] == ([] if new is None else ["new"])
    result, lines, _ = check(image.data)
    assert (lines, result.leaks, result.corruptions) == ([], 0, 0)


def test_only_clusters_that_differ_are_copied_and_zeroes_beyond_the_old_end_need_no_space() -> None:
    old = bytearray(noise(1, 2 * MiB - 1024))
    old[MiB : MiB + 131072] = bytes(131072)
    new = below(old, SIZE)
    new[65536 + 5] ^= 1
    new[MiB : MiB + 131072] = b"n" * 131072
    new[2 * MiB - 512] = 1
    new[2 * MiB + 65536] = 1
    image = MemoryDriver(create(SIZE, {"backing_file": "old", "backing_fmt": "raw"}))
    with attach(image, backing=bytes(old)) as node:
        rebase(node, disk(bytes(new)))
        held = [extent for extent in node.extents() if extent.status & Status.ALLOCATED]
    assert [(extent.offset, extent.length, bool(extent.status & Status.ZERO)) for extent in held] == [
        (65536, 65536, False),
        (MiB, 131072, False),
        (2 * MiB - 65536, 65536, False),
        (2 * MiB + 65536, 65536, True),
    ]


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, Path, Path]:
    base, middle, top = tmp_path / "base.raw", tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    base.write_bytes(noise(1))
    make(middle, SIZE, backing=base)
    write(middle, "qcow2", {MiB: b"m" * 65536, 2 * MiB: b"M" * 512})
    make(top, SIZE + MiB, backing=middle, backing_format="qcow2")
    write(top, "qcow2", {0: b"t" * 512})
    return base, middle, top


def test_image_of_the_own_chain_is_reused_and_only_what_lies_above_it_copied(chain: tuple[Path, Path, Path]) -> None:
    base, middle, top = chain
    expected = content(top, "qcow2")
    with graph.open(str(top), "qcow2", read_only=False) as node:
        new = find_in_chain(node, str(base))
        assert new is list(node.chain())[2]
        assert find_in_chain(node, str(top)) is None
        rebase(node, new)
        change_backing(node, str(base), "raw")
    middle.unlink()
    assert content(top, "qcow2") == expected
    with graph.open(str(top), "qcow2", no_backing=True) as node:
        held = [extent.offset for extent in node.extents() if extent.status & Status.DATA]
    assert held == [0, MiB, 2 * MiB]
    assert check_file(top)[1] == []


def test_same_backing_image_copies_nothing(chain: tuple[Path, Path, Path]) -> None:
    _, middle, top = chain
    before = top.stat().st_blocks
    with graph.open(str(top), "qcow2", read_only=False) as node:
        rebase(node, find_in_chain(node, str(middle)))
        change_backing(node, str(middle), "qcow2")
    assert top.stat().st_blocks == before


def outcomes(log: list[Entry], image: bytes) -> list[bytes]:
    """The image after each prefix of a log, and with the writes since the last sync left out but one."""
    states = []
    for end in range(len(log) + 1):
        prefix = log[:end]
        synced = max((index for index, entry in enumerate(prefix) if entry.kind is Kind.FLUSH), default=-1) + 1
        for kept in (prefix, [*prefix[:synced], *prefix[-1:]]):
            state = MemoryDriver(image)
            for entry in kept:
                entry.apply(state)
            states.append(bytes(state.data))
    return states


def test_crash_at_any_write_leaves_the_same_content_on_the_old_or_the_new_image() -> None:
    old, new = noise(1), variant(noise(1), 5)
    empty = create(SIZE, {"backing_file": "old", "backing_fmt": "raw", "cluster_size": 65536})
    with attach(start := MemoryDriver(empty), backing=old) as node:
        node.pwrite(MiB + 300, b"overlay" * 100)
        expected = node.read(0, SIZE)
    logged = LoggedDriver(start.data)
    with attach(logged, backing=old) as node:
        rebase(node, disk(new))
        change_backing(node, "new", "raw")
    seen = set()
    for state in outcomes(logged.log, bytes(start.data)):
        with attach(MemoryDriver(state), read_only=True) as node:
            (reference,) = node.driver.references()
        seen.add(reference.filename)
        with attach(MemoryDriver(state), read_only=True, backing=old if reference.filename == "old" else new) as node:
            assert node.read(0, SIZE) == expected
    assert seen == {"old", "new"}


def test_failing_copy_leaves_the_old_backing_file_recorded() -> None:
    old, new = noise(1), noise(2)
    empty = create(SIZE, {"backing_file": "old", "backing_fmt": "raw"})
    image = FaultyDriver(empty)
    node = attach(image, backing=old)
    image.arm(7, errno.ENOSPC)
    with pytest.raises(BlockError, match="Error while writing to COW image: No space left on device"):
        rebase(node, disk(new))
    with attach(MemoryDriver(image.data), read_only=True, backing=old) as after:
        assert [reference.filename for reference in after.driver.references()] == ["old"]
        assert after.read(0, SIZE) == old


def test_backing_file_without_a_format_or_for_raw_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    make(top, MiB)
    with graph.open(str(top), "qcow2", read_only=False) as node:
        with pytest.raises(BlockError, match="to 'b': backing format must be specified"):
            check_change(node, "b", None)
        with pytest.raises(BlockError, match=r"No space left in the file header|Invalid argument"):
            change_backing(node, "b" * 70000, "raw")
        check_change(node, None, None)
    (tmp_path / "raw").write_bytes(bytes(512))
    with (
        graph.open(str(tmp_path / "raw"), "raw", read_only=False) as node,
        pytest.raises(BlockError, match="Operation not supported"),
    ):
        change_backing(node, "b", "raw")
