"""Pools on a file system that is really full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, VolumeCreateFlag
from hostel.drivers.storage.driver import SessionStorageDriver as Storage
from hostel.errors import VirtError
from hostel.units import GiB, KiB, MiB
from support import images
from support.small_disk import small_disk
from support.volumes import xml


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "volumes", MiB) as mounted:
        yield mounted.folder


@contextlib.contextmanager
def room(place: Path, left: int) -> Iterator[None]:
    """Have room for a few bytes only; nothing is there afterwards that was not before."""
    before = sorted(os.listdir(place))
    status = os.statvfs(place)
    rest = place / "rest"
    rest.write_bytes(bytes(status.f_bavail * status.f_frsize - left))
    yield
    rest.unlink()
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize(
    ("made", "flags"),
    [
        (xml("new", MiB // 2, allocation=MiB // 2), VolumeCreateFlag.NONE),
        (xml("new", MiB // 2, format="qcow2"), VolumeCreateFlag.NONE),
        (xml("new", MiB // 2, format="qcow2"), VolumeCreateFlag.PREALLOC_METADATA),
    ],
)
def test_volume_for_which_there_is_no_room_is_not_there(
    driver: Storage, started: PoolRef, place: Path, made: str, flags: VolumeCreateFlag
) -> None:
    with room(place, 64 * KiB), pytest.raises(VirtError, match="No space left on device") as caught:
        driver.storage_vol_create_xml(started, made, flags)
    assert f"the file system of '{place}/new'" in caught.value.message
    assert driver.storage_pool_list_all_volumes(started) == []
    driver.storage_vol_create_xml(started, made, flags)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_copy_for_which_there_is_no_room_is_not_there(
    driver: Storage, started: PoolRef, place: Path, format: str
) -> None:
    origin = driver.storage_vol_create_xml(started, xml("origin", 256 * KiB))
    images.write(place / "origin", "raw", {0: b"kept" * 64 * KiB})
    made = xml("new", 256 * KiB, format=format)
    with room(place, 128 * KiB), pytest.raises(VirtError, match="No space left on device"):
        driver.storage_vol_create_xml_from(started, made, origin)
    driver.storage_vol_create_xml_from(started, made, origin)
    assert images.content(place / "new", format) == b"kept" * 64 * KiB


def test_volume_that_finds_no_room_to_grow_is_what_it_was(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", MiB, format="qcow2"))
    images.write(place / "disk", "qcow2", {0: b"kept"})
    with room(place, 0), pytest.raises(VirtError, match="No space left on device"):
        driver.storage_vol_resize(volume, 100 * GiB)
    assert driver.storage_vol_get_info(volume).capacity == MiB
    assert images.content(place / "disk", "qcow2")[:4] == b"kept"
    driver.storage_vol_resize(volume, 100 * GiB)
    assert driver.storage_vol_get_info(volume).capacity == 100 * GiB


def test_upload_that_finds_no_room_is_refused(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", MiB))
    with room(place, 64 * KiB), pytest.raises(VirtError, match=r"No space left on device; .* of which 0 B are free"):
        driver.storage_vol_upload(volume, [bytes([1]) * 256 * KiB])
    driver.storage_vol_upload(volume, [bytes([1]) * 256 * KiB])
    assert (place / "disk").read_bytes() == bytes([1]) * 256 * KiB + bytes(MiB - 256 * KiB)
