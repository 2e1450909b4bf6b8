"""Pools of ZFS: which command lines its tools get, and what is made of their answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hostel.drivers.base import PoolRef, VolumeRef
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.errors import ErrorCode, VirtError
from support.storage_tools import Tools, calls, pool


class TestZfs:
    """``zfs``: zfs and zpool."""

    PROPERTIES = "t\thealth\tONLINE\t-\nt\tsize\t1000\t-\nt\tfree\t600\t-\nt\tallocated\t400\t-\n"

    @pytest.fixture
    def started(self, driver: SessionStorageDriver, tools: Tools) -> PoolRef:
        tools.answer("zpool get", self.PROPERTIES)
        tools.answer("zfs list", "t/a\t4096\t4096\nt/sub/b\t8192\tnone\n")
        tools.answer("zfs get", code=2, err="usage: get ...\n  volsize  NO\n")
        return driver.storage_pool_create_xml(pool("zfs", "<name>t</name>"))

    def test_sizes_and_volumes_are_what_the_tools_tell(
        self, driver: SessionStorageDriver, started: PoolRef, tools: Tools
    ) -> None:
        assert driver.storage_pool_get_info(started)[1:] == (1000, 400, 600)
        assert driver.storage_pool_list_all_volumes(started) == [
            VolumeRef("p", "a", "t/a"),
            VolumeRef("p", "b", "t/sub/b"),
        ]
        assert calls(tools)[-2:] == [
            "zpool get -Hp health,size,free,allocated t",
            "zfs list -Hp -t volume -r -o name,volsize,refreservation t",
        ]

    @pytest.mark.parametrize(
        ("volume", "expected"),
        [
            ("<capacity unit='K'>4</capacity>", "zfs create -V 4K t/v"),
            ("<capacity unit='K'>4</capacity><allocation>0</allocation>", "zfs create -s -V 4K t/v"),
            (
                "<capacity unit='K'>4</capacity><allocation>1025</allocation>",
                "zfs create -s -o refreservation=2K -V 4K t/v",
            ),
        ],
    )
    def test_volumes_are_made_as_libvirt_makes_them(
        self, driver: SessionStorageDriver, started: PoolRef, tools: Tools, volume: str, expected: str
    ) -> None:
        calls(tools)
        tools.answer("zfs create", code=1, err="cannot create 't/v': out of space\n")
        with pytest.raises(VirtError, match="out of space"):
            driver.storage_vol_create_xml(started, f"<volume><name>v</name>{volume}</volume>")
        assert calls(tools)[-1] == expected

    def test_a_zfs_that_wants_to_know_what_a_volume_is_is_told(
        self, driver: SessionStorageDriver, started: PoolRef, tools: Tools
    ) -> None:
        tools.answer("zfs get", code=2, err="usage: get ...\n  volmode  YES\n")
        tools.answer("zfs create", code=1)
        with pytest.raises(VirtError):
            driver.storage_vol_create_xml(started, "<volume><name>v</name><capacity>1024</capacity></volume>")
        assert calls(tools)[-1] == "zfs create -o volmode=dev -V 1K t/v"

    def test_a_volume_is_destroyed_by_its_whole_name(
        self, driver: SessionStorageDriver, started: PoolRef, tools: Tools
    ) -> None:
        tools.add("zfs")
        driver.storage_vol_delete(VolumeRef("p", "b", ""))
        assert calls(tools)[-1] == "zfs destroy t/sub/b"

    @pytest.mark.parametrize(
        ("source", "built", "deleted"),
        [
            (
                "<name>t</name><device path='/dev/a'/><device path='/dev/b'/>",
                "zpool create t /dev/a /dev/b",
                "zpool destroy t",
            ),
            ("<name>t/sub</name>", "zfs create -o mountpoint=none t/sub", "zfs destroy -r t/sub"),
        ],
    )
    def test_pools_and_data_sets_are_made_and_destroyed(
        self, driver: SessionStorageDriver, tools: Tools, source: str, built: str, deleted: str
    ) -> None:
        tools.add("zfs", "zpool")
        found = driver.storage_pool_define_xml(pool("zfs", source))
        driver.storage_pool_build(found)
        driver.storage_pool_delete(found)
        assert calls(tools) == [built, deleted]
        with pytest.raises(VirtError) as caught:
            driver.storage_pool_build(found, overwrite=True)
        assert caught.value.code is ErrorCode.INVALID_ARG

    def test_volumes_are_neither_wiped_nor_resized(self, driver: SessionStorageDriver, started: PoolRef) -> None:
        changes: tuple[Callable[[], None], ...] = (
            lambda: driver.storage_vol_wipe_pattern(VolumeRef("p", "a", "")),
            lambda: driver.storage_vol_resize(VolumeRef("p", "a", ""), 1 << 20),
        )
        for call in changes:
            with pytest.raises(VirtError) as caught:
                call()
            assert caught.value.code is ErrorCode.NO_SUPPORT
