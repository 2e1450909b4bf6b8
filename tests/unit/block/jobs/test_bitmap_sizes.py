"""Bitmaps of nodes that get another size: what is written where there was nothing is in the next backup too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostel.block.bitmap import DirtyBitmap
from hostel.block.jobs.backup import BackupJob, BackupSettings, BackupSync
from hostel.block.jobs.bitmaps import add_bitmap
from hostel.block.node import BlockNode
from hostel.errors import OutOfRange
from support import jobs
from support.memory import MemoryDriver

MIB = 1 << 20
UNIT = 64 * 1024


def memory(size: int, *, bounded: bool = True) -> BlockNode:
    return BlockNode(MemoryDriver(bytes(size)), "memory", read_only=False, bounded=bounded)


def marked(bits: DirtyBitmap) -> list[tuple[int, int]]:
    return [(offset, length) for offset, length, dirty in bits.ranges(0, bits.size) if dirty]


def by_resizing(node: BlockNode) -> None:
    node.resize(2 * MIB)
    node.pwrite(2 * MIB - 5, b"hello")


def by_writing(node: BlockNode) -> None:
    node.pwrite(2 * MIB - 5, b"hello")


@pytest.mark.parametrize("grow", [by_resizing, by_writing])
def test_what_is_written_beyond_the_old_end_is_recorded(grow: Callable[[BlockNode], None]) -> None:
    with memory(MIB, bounded=grow is by_resizing) as node:
        bitmap = add_bitmap(node, "since", UNIT)
        later = add_bitmap(node, "paused", UNIT, recording=False)
        grow(node)
        assert bitmap.bits.size == later.bits.size == node.length == 2 * MIB
        assert marked(bitmap.bits) == [(2 * MIB - UNIT, UNIT)]
        assert marked(later.bits) == []


def test_an_incremental_backup_of_a_disk_that_has_grown_is_complete() -> None:
    with memory(MIB) as node:
        bitmap = add_bitmap(node, "since", UNIT)
        by_resizing(node)
        node.pwrite(0, b"first")
        with memory(2 * MIB) as target:
            jobs.run(BackupJob(jobs.settings(), node, target, BackupSettings(BackupSync.INCREMENTAL, bitmap)))
            assert target.read(0, 2 * MIB) == node.read(0, 2 * MIB)
        assert marked(bitmap.bits) == []


def test_of_a_disk_that_has_shrunk_nothing_is_marked_beyond_its_end() -> None:
    with memory(2 * MIB) as node:
        bitmap = add_bitmap(node, "since", UNIT)
        node.pwrite(0, bytes(2 * MIB))
        node.resize(MIB)
        assert bitmap.bits.size == MIB
        assert marked(bitmap.bits) == [(0, MIB)]
        with pytest.raises(OutOfRange):
            node.pwrite(MIB, b"x")
        node.resize(2 * MIB)
        assert marked(bitmap.bits) == [(0, MIB)]
