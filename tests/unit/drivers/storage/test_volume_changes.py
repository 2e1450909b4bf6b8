"""Volumes of directory pools that are resized and wiped."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, VolumeResizeFlag, WipeAlgorithm
from hostel.drivers.storage import wiping
from hostel.drivers.storage.driver import SessionStorageDriver as Storage
from hostel.errors import ErrorCode, VirtError
from hostel.units import KiB, MiB
from support import images
from support.refusal import refused
from support.volumes import xml


def test_resize_keeps_what_is_there_and_needs_leave_to_shrink(driver: Storage, started: PoolRef, place: Path) -> None:
    for format in ("raw", "qcow2"):
        volume = driver.storage_vol_create_xml(started, xml(format, 2 * MiB, format=format))
        images.write(place / format, format, {MiB: b"kept"})
        driver.storage_vol_resize(volume, MiB, VolumeResizeFlag.DELTA)
        assert driver.storage_vol_get_info(volume).capacity == 3 * MiB
        with refused(
            ErrorCode.INVALID_ARG,
            "invalid argument: Can't shrink capacity below current capacity unless shrink flag explicitly specified",
        ):
            driver.storage_vol_resize(volume, 2 * MiB)
        driver.storage_vol_resize(volume, MiB, VolumeResizeFlag.DELTA | VolumeResizeFlag.SHRINK)
        assert driver.storage_vol_get_info(volume).capacity == 2 * MiB
        assert images.content(place / format, format)[MiB : MiB + 4] == b"kept"


def test_resize_allocates_only_raw_volumes(driver: Storage, started: PoolRef) -> None:
    raw = driver.storage_vol_create_xml(started, xml("raw", MiB))
    driver.storage_vol_resize(raw, 2 * MiB, VolumeResizeFlag.ALLOCATE)
    assert driver.storage_vol_get_info(raw).allocation >= 2 * MiB
    qcow2 = driver.storage_vol_create_xml(started, xml("qcow2", MiB, format="qcow2"))
    with refused(
        ErrorCode.OPERATION_UNSUPPORTED, "Operation not supported: preallocate is only supported for raw type volume"
    ):
        driver.storage_vol_resize(qcow2, 2 * MiB, VolumeResizeFlag.ALLOCATE)


@pytest.mark.parametrize("capacity", [-1, 2**63])
def test_resize_to_no_size_is_refused(driver: Storage, started: PoolRef, capacity: int) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_resize(volume, capacity)
    assert caught.value.code in (ErrorCode.INVALID_ARG, ErrorCode.OVERFLOW)
    assert driver.storage_vol_get_info(volume).capacity == MiB


@pytest.mark.parametrize("algorithm", list(wiping.SEQUENCES))
def test_wipe_leaves_nothing_of_the_content(
    driver: Storage, started: PoolRef, place: Path, algorithm: WipeAlgorithm
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 64 * KiB, allocation=None))
    secret = random.Random(2).randbytes(64)
    images.write(place / "disk", "raw", dict.fromkeys(range(0, 64 * KiB, 1024), secret))
    seen: list[tuple[int, int]] = []
    driver.storage_vol_wipe_pattern(volume, algorithm, lambda *step: seen.append(step))
    left = (place / "disk").read_bytes()
    assert len(left) == 64 * KiB
    assert secret not in left
    assert seen[-1][0] == seen[-1][1]


def test_wiping_passes_are_those_of_their_authors() -> None:
    lengths = {algorithm.name: len(sequence.passes) for algorithm, sequence in wiping.SEQUENCES.items()}
    assert lengths == {
        "ZERO": 1, "NNSA": 3, "DOD": 3, "BSI": 9, "GUTMANN": 35, "SCHNEIER": 7, "PFITZNER7": 7, "PFITZNER33": 33,
        "RANDOM": 1,
    }  # fmt: skip
    gutmann = wiping.SEQUENCES[WipeAlgorithm.GUTMANN].passes
    assert gutmann[:4] == gutmann[-4:] == (None,) * 4
    assert gutmann[6:9] == (b"\x92\x49\x24", b"\x49\x24\x92", b"\x24\x92\x49")
    assert list(gutmann[9:25]) == [bytes([value * 0x11]) for value in range(16)]


def test_wipe_of_a_sparse_volume_writes_what_was_allocated_and_leaves_a_hole(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 1024 * MiB))
    images.write(place / "disk", "raw", {512 * MiB: b"secret"})
    seen: list[tuple[int, int]] = []
    driver.storage_vol_wipe_pattern(volume, progress=lambda *step: seen.append(step))
    assert 0 < seen[-1][1] < MiB  # and not the gigabyte
    assert ((place / "disk").stat().st_size, (place / "disk").stat().st_blocks) == (1024 * MiB, 0)


def test_wiped_image_is_raw(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", format="qcow2"))
    driver.storage_vol_wipe_pattern(volume)
    assert "<format type='raw'/>" in driver.storage_vol_get_xml_desc(volume)


def test_trimming_a_file_is_refused(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    with refused(ErrorCode.ARGUMENT_UNSUPPORTED, "argument unsupported: 'trim' algorithm not supported"):
        driver.storage_vol_wipe_pattern(volume, WipeAlgorithm.TRIM)
