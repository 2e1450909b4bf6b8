"""Volumes of directory pools: which files are some, how they are found, and what is refused of used ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.drivers.base import PoolRef
from hostel.drivers.storage.driver import SessionStorageDriver as Storage
from hostel.errors import ErrorCode, VirtError
from hostel.units import MiB
from support import images
from support.refusal import refused
from support.volumes import xml


def test_lookups_find_by_name_key_and_any_spelling_of_the_path(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk"))
    assert driver.storage_vol_lookup_by_name(started, "disk") == volume
    assert driver.storage_vol_lookup_by_key(str(place / "disk")) == volume
    assert driver.storage_vol_lookup_by_path(f"{place}//disk/") == volume
    assert driver.storage_pool_lookup_by_volume(volume) == started
    with refused(ErrorCode.NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching name 'x'"):
        driver.storage_vol_lookup_by_name(started, "x")
    with refused(
        ErrorCode.NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching path '/x//y' (/x/y)"
    ):
        driver.storage_vol_lookup_by_path("/x//y")
    with refused(ErrorCode.NO_STORAGE_VOL, "Storage volume not found: no storage vol with matching key /x"):
        driver.storage_vol_lookup_by_key("/x")


@pytest.mark.parametrize("name", ["../home", "..", "", "a/b", "a\0b"])
def test_lookup_does_not_leave_the_directory(driver: Storage, started: PoolRef, name: str) -> None:
    with pytest.raises(VirtError) as caught:
        driver.storage_vol_lookup_by_name(started, name)
    assert caught.value.code is ErrorCode.NO_STORAGE_VOL


def test_volume_that_is_used_is_not_changed_but_can_be_read(driver: Storage, started: PoolRef, place: Path) -> None:
    volume = driver.storage_vol_create_xml(started, xml("disk", format="qcow2"))
    with graph.open(str(place / "disk"), "qcow2", read_only=False):
        for call in (
            lambda: driver.storage_vol_delete(volume),
            lambda: driver.storage_vol_wipe_pattern(volume),
            lambda: driver.storage_vol_resize(volume, 2 * MiB),
            lambda: driver.storage_vol_upload(volume, [b"x"]),
            lambda: driver.storage_vol_create_xml_from(started, xml("clone"), volume),
        ):
            with pytest.raises(VirtError, match="volume 'disk' is still in use by ") as caught:
                call()
            assert caught.value.code is ErrorCode.OPERATION_INVALID
        assert driver.storage_vol_get_info(volume).capacity == MiB
        assert b"".join(bytes(piece) for piece in driver.storage_vol_download(volume))[:4] == b"QFI\xfb"
    assert images.content(place / "disk", "qcow2") == bytes(MiB)
    assert os.listdir(place) == ["disk"]


def test_delete_removes_the_link_and_not_what_it_leads_to(
    driver: Storage, started: PoolRef, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    driver.storage_vol_delete(driver.storage_vol_lookup_by_name(started, "link"))
    assert (tmp_path / "elsewhere").read_text() == "kept"
    assert os.listdir(place) == []


def test_directory_volumes_refuse_what_is_done_to_files(driver: Storage, started: PoolRef) -> None:
    volume = driver.storage_vol_create_xml(started, xml("folder", 0, format="dir"))
    for call in (
        lambda: driver.storage_vol_wipe_pattern(volume),
        lambda: driver.storage_vol_resize(volume, MiB),
        lambda: driver.storage_vol_upload(volume, [b"x"]),
        lambda: list(driver.storage_vol_download(volume)),
        lambda: driver.storage_vol_create_xml_from(started, xml("clone"), volume),
    ):
        with pytest.raises(VirtError, match="director"):
            call()


def test_files_that_are_no_volumes_are_left_out(driver: Storage, started: PoolRef, place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("nosuch")
    (place / "line\nbreak").touch()
    (place / os.fsdecode(b"not-utf8-\xff")).touch()
    (place / ".hidden").touch()
    (place / "näme & <co>").touch()
    names = [volume.name for volume in driver.storage_pool_list_all_volumes(started)]
    assert names == [".hidden", "näme & <co>"]
    for name in ("fifo", "loop", "dangling", "line\nbreak"):
        with pytest.raises(VirtError) as caught:
            driver.storage_vol_lookup_by_name(started, name)
        assert caught.value.code is ErrorCode.NO_STORAGE_VOL
