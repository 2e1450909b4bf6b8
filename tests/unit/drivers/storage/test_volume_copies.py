"""Volumes of directory pools that are copies of others."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, VolumeCreateFlag
from hostel.drivers.storage.driver import SessionStorageDriver as Storage
from hostel.errors import ErrorCode
from hostel.units import MiB
from support import images
from support.refusal import refused
from support.volumes import over, xml


@pytest.mark.parametrize(("source", "target"), [("raw", "raw"), ("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2")])
def test_clone_holds_the_same_in_either_format(
    driver: Storage, started: PoolRef, place: Path, source: str, target: str
) -> None:
    data = random.Random(1).randbytes(200_000)
    volume = driver.storage_vol_create_xml(started, xml("disk", 3 * MiB, format=source))
    images.write(place / "disk", source, {MiB - 777: data})
    seen: list[tuple[int, int]] = []
    clone = driver.storage_vol_create_xml_from(
        started, xml("clone", 1, format=target), volume, VolumeCreateFlag.NONE, lambda *step: seen.append(step)
    )
    assert images.content(place / "clone", target) == images.content(place / "disk", source)
    assert driver.storage_vol_get_info(clone).capacity == 3 * MiB
    assert driver.storage_vol_get_info(clone).allocation < 2 * MiB
    assert seen[-1] == (3 * MiB, 3 * MiB)


def test_clone_over_a_backing_store_that_is_not_there_is_refused(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    what = "inaccessible backing store volume none: No such file or directory"
    with refused(ErrorCode.SYSTEM_ERROR, what):
        driver.storage_vol_create_xml_from(started, xml("x", format="qcow2", backing=over("none", "raw")), volume)
    with refused(
        ErrorCode.CONFIG_UNSUPPORTED,
        "unsupported configuration: metadata preallocation conflicts with backing store",
    ):
        driver.storage_vol_create_xml_from(
            started, xml("x", format="qcow2", backing=over("disk", "raw")), volume, VolumeCreateFlag.PREALLOC_METADATA
        )
    assert os.listdir(place) == ["disk"]


def test_new_volume_is_refused_flags_that_nothing_can_be_made_of(
    driver: Storage, started: PoolRef, place: Path
) -> None:
    what = "unsupported flags (0x2) in function storageVolCreateXML"
    with refused(ErrorCode.INVALID_ARG, what):
        driver.storage_vol_create_xml(started, xml("x"), VolumeCreateFlag.REFLINK)
    with refused(ErrorCode.INVALID_ARG, "unsupported flags (0x1) in function createFileDir"):
        driver.storage_vol_create_xml(started, xml("x", format="dir"), VolumeCreateFlag.PREALLOC_METADATA)
    assert os.listdir(place) == []


def test_clone_of_a_raw_volume_of_an_odd_size_has_that_size(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", 1000))
    (place / "disk").write_bytes(b"x" * 1000)
    driver.storage_vol_create_xml_from(started, xml("clone", 1), volume)
    assert (place / "clone").read_bytes() == b"x" * 1000


@pytest.mark.parametrize("format", ["qcow2", "vmdk", "vdi"])
def test_clone_has_as_many_sectors_as_its_source(driver: Storage, started: PoolRef, place: Path, format: str) -> None:
    data = random.Random(2).randbytes(3 * 512)
    volume = driver.storage_vol_create_xml(started, xml("disk", len(data)))
    (place / "disk").write_bytes(data)
    clone = driver.storage_vol_create_xml_from(started, xml("clone", 1, format=format), volume)
    assert driver.storage_vol_get_info(clone).capacity == len(data)
    assert images.content(place / "clone", format) == data


def test_clone_may_be_larger_and_its_end_reads_as_zeroes(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", MiB))
    images.write(place / "disk", "raw", {MiB - 4: b"last"})
    driver.storage_vol_create_xml_from(started, xml("clone", 2 * MiB, format="qcow2"), volume)
    found = images.content(place / "clone", "qcow2")
    assert found[MiB - 4 : MiB] == b"last"
    assert not any(found[MiB:])


def test_clone_of_an_overlay_stands_alone(driver: Storage, started: PoolRef, place: Path) -> None:
    driver.storage_vol_create_xml(started, xml("base"))
    images.write(place / "base", "raw", {0: b"below"})
    overlay = driver.storage_vol_create_xml(started, xml("over", format="qcow2", backing=over("base", "raw")))
    images.write(place / "over", "qcow2", {100: b"above"})
    document = driver.storage_vol_get_xml_desc(overlay).replace("<name>over</name>", "<name>flat</name>")
    clone = driver.storage_vol_create_xml_from(started, document, overlay)
    (place / "base").unlink()
    assert "backingStore" not in driver.storage_vol_get_xml_desc(clone)
    assert images.content(place / "flat", "qcow2")[:105] == b"below" + bytes(95) + b"above"


def test_clone_into_another_pool(driver: Storage, started: PoolRef, tmp_path: Path) -> None:
    other = driver.storage_pool_create_xml(
        f"<pool type='dir'><name>other</name><target><path>{tmp_path}/other</path></target></pool>", build=True
    )
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    clone = driver.storage_vol_create_xml_from(other, xml("disk"), volume)
    assert clone.key == f"{tmp_path}/other/disk"


def test_clone_that_fails_leaves_nothing(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))

    def fail(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        driver.storage_vol_create_xml_from(started, xml("clone", format="qcow2"), volume, VolumeCreateFlag.NONE, fail)
    assert os.listdir(place) == ["disk"]
