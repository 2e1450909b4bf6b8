"""Repairs that are cut off, or meet a fault: what is left can be repaired, and has lost nothing that was there."""

from __future__ import annotations

import random
import struct
from collections import Counter
from typing import Final

import pytest

from hostel.block.formats.parallels.layout import IN_USE
from hostel.block.formats.parallels.layout import Header as ParallelsHeader
from hostel.block.formats.qed.layout import Header as QedHeader
from hostel.block.powers import Repair
from support.crash import crash_states, sample
from support.fault import faults
from support.format_subjects import SUBJECTS
from support.memory import FaultyDriver, LoggedDriver, MemoryDriver
from support.tally import tried

__all__ = ["tried"]

CLUSTER: Final = 4096
SIZE: Final = 60 * CLUSTER
COPIES: Final = 3  # that a repair makes


def _filled(format: str, **options: int) -> bytes:
    """An image whose first eight clusters have data."""
    subject = SUBJECTS[format]
    driver = MemoryDriver(subject.create(SIZE, {"cluster_size": CLUSTER, **options}))
    with subject.attach(driver) as node:
        node.pwrite(0, b"".join(bytes([index]) * CLUSTER for index in range(1, 9)))
    return bytes(driver.data)


def _damaged_qed() -> bytes:
    """Marked, with shared clusters, a place outside the file, and leaks at its end."""
    data = bytearray(_filled("qed", table_size=1) + bytes(3 * CLUSTER))
    header = QedHeader.unpack(data)
    (table,) = struct.unpack_from("<Q", data, header.l1_table_offset)
    (first,) = struct.unpack_from("<Q", data, table)
    for index, value in ((20, first), (21, first), (22, table), (23, 1 << 40), (24, 0x123)):
        struct.pack_into("<Q", data, table + 8 * index, value)
    return header.replace(features=2).pack() + bytes(data[QedHeader.SIZE :])


def _damaged_parallels() -> bytes:
    """Marked, with shared clusters, places outside the file, and leaks at its end."""
    data = bytearray(_filled("parallels") + bytes(3 * CLUSTER))
    for index, value in ((20, 1), (21, 1), (22, 2), (23, 1 << 20), (24, 0)):
        struct.pack_into("<I", data, ParallelsHeader.SIZE + 4 * index, value)
    header = ParallelsHeader.unpack(data).replace(inuse=IN_USE)
    return header.pack() + bytes(data[ParallelsHeader.SIZE :])


DAMAGED: Final = {"qed": _damaged_qed, "parallels": _damaged_parallels}


def _content(format: str, data: bytes | bytearray) -> bytes:
    """What the guest reads of what can be read."""
    with SUBJECTS[format].attach(MemoryDriver(data), read_only=True) as node:
        return bytes(node.read(0, 22 * CLUSTER))


def _judge(format: str, data: bytes | bytearray, content: bytes, *, leaks: int = 0) -> None:
    """A disk that a repair has left: it is repaired to the end, and nothing is lost.

    Of copies that a first repair made, some may be referred to and others be ``leaks`` between them.
    """
    subject = SUBJECTS[format]
    assert _content(format, data) == content
    result, lines, after = subject.check(data, Repair.ALL)
    assert (result.corruptions, result.check_errors) == (0, 0), lines
    result, lines, _ = subject.check(after)
    assert (result.corruptions, result.check_errors) == (0, 0), lines
    assert result.leaks <= leaks, lines
    assert not subject.marked(after)
    assert _content(format, after) == content


@pytest.mark.parametrize("format", DAMAGED)
def test_a_repair_leaves_a_sound_image_with_all_its_data(format: str) -> None:
    data = DAMAGED[format]()
    result, _, _ = SUBJECTS[format].check(data)
    assert result.corruptions >= 4
    assert result.leaks == 3
    _judge(format, data, _content(format, data))


@pytest.mark.parametrize("format", DAMAGED)
def test_a_repair_that_is_cut_off_is_done_by_the_next(format: str, tried: Counter[str]) -> None:
    data = DAMAGED[format]()
    content = _content(format, data)
    driver = LoggedDriver(data)
    with SUBJECTS[format].attach(driver, check=True) as node:
        node.driver.check(Repair.ALL, lambda line: None)  # type: ignore[attr-defined]
    rng = random.Random(f"repair {format}")
    for state in sample(crash_states(data, driver.log, rng, samples=8), rng, 300):
        tried["disks after power cuts"] += 1
        _judge(format, state.data, content, leaks=COPIES)


@pytest.mark.parametrize("format", DAMAGED)
def test_a_fault_in_a_repair_is_reported_and_harms_nothing(format: str, tried: Counter[str]) -> None:
    data = DAMAGED[format]()
    content = _content(format, data)
    subject = SUBJECTS[format]

    def repair(driver: FaultyDriver) -> int:
        with subject.attach(driver, check=True) as node:
            return int(node.driver.check(Repair.ALL, lambda line: None).check_errors)  # type: ignore[attr-defined]

    sound = FaultyDriver(data)
    sound.arm()
    repair(sound)
    for fault in faults(list(sound.calls)):
        tried["faults"] += 1
        driver = FaultyDriver(data)
        driver.arm(fault.at, fault.code, short=fault.short)
        try:
            errors = repair(driver)
        except OSError:
            assert driver.fired
        else:
            assert errors, f"{fault} was swallowed"
        _judge(format, driver.data, content, leaks=COPIES)
