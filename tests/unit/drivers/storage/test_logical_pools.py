"""Pools of LVM: which command lines its tools get, what is made of their answers, and of their failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, WipeAlgorithm
from hostel.drivers.storage.backends.base import Host, Listed
from hostel.drivers.storage.backends.logical import LogicalBackend
from hostel.drivers.storage.document import BackingDefinition, Extent, PoolDefinition
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.errors import ErrorCode, VirtError
from hostel.model.storage import PoolSource
from support.refusal import refused
from support.storage_tools import Tools, calls, pool

VGS = "vgs --separator : --noheadings --units b --unbuffered --nosuffix --options vg_size,vg_free vg"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file in a device's place."""
    path = tmp_path / "device"
    path.write_bytes(b"\xff" * (4 << 20))
    return path


class TestLogical:
    """``logical``: LVM's tools."""

    source = "<name>vg</name>"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Where the group's volumes are: files in their devices' place."""
        path = tmp_path / "vg"
        path.mkdir()
        return path

    @pytest.fixture
    def started(self, driver: SessionStorageDriver, tools: Tools) -> PoolRef:
        tools.answer("pvs", "  /dev/sdb  vg\n  /dev/sdc\n  /dev/sdd  vg\n")
        tools.answer("vgs", "  10737418240:4294967296\n")
        tools.add("vgscan", "vgchange")
        return driver.storage_pool_create_xml(pool("logical", self.source))

    def test_start_looks_for_the_group_and_activates_it_here(self, started: PoolRef, tools: Tools) -> None:
        assert calls(tools) == ["vgscan", "pvs --noheadings -o pv_name,vg_name", "vgchange -aly vg", VGS]

    def test_stop_deactivates_it(self, driver: SessionStorageDriver, started: PoolRef, tools: Tools) -> None:
        calls(tools)
        driver.storage_pool_destroy(started)
        assert calls(tools) == ["vgchange -aln vg"]

    def test_sizes_are_the_groups(self, driver: SessionStorageDriver, started: PoolRef) -> None:
        assert driver.storage_pool_get_info(started)[1:] == (10737418240, 6442450944, 4294967296)

    def test_a_group_that_is_not_there_is_named(self, driver: SessionStorageDriver, tools: Tools) -> None:
        tools.answer("pvs", "  /dev/sdb  other\n")
        tools.add("vgscan")
        with refused(
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: cannot find logical volume group name 'vg'",
        ):
            driver.storage_pool_create_xml(pool("logical", self.source))

    def test_a_group_on_other_devices_is_not_the_one(self, driver: SessionStorageDriver, tools: Tools) -> None:
        tools.answer("pvs", "  /dev/sdb  vg\n")
        tools.add("vgscan")
        with refused(
            ErrorCode.CONFIG_UNSUPPORTED,
            "unsupported configuration: cannot find any matching source devices for logical volume group 'vg'",
        ):
            driver.storage_pool_create_xml(pool("logical", "<name>vg</name><device path='/dev/sdz'/>"))

    def test_build_clears_the_devices_and_makes_a_group_of_them(
        self, driver: SessionStorageDriver, tools: Tools, device: Path
    ) -> None:
        tools.answer("blkid", code=2)
        tools.add("pvcreate", "vgcreate", "pvremove")
        found = driver.storage_pool_define_xml(pool("logical", f"<name>vg</name><device path='{device}'/>"))
        driver.storage_pool_build(found)
        assert calls(tools) == [f"blkid -p -o export {device}", f"pvcreate {device}", f"vgcreate vg {device}"]
        data = device.read_bytes()
        assert not any(data[: 1 << 20]) and not any(data[-(1 << 20) :]) and data[1 << 20] == 0xFF

    def test_build_over_something_needs_to_be_told_so(
        self, driver: SessionStorageDriver, tools: Tools, device: Path
    ) -> None:
        before = device.read_bytes()
        tools.answer("blkid", f"DEVNAME={device}\nUUID=1\nTYPE=ext4\nUSAGE=filesystem\n")
        tools.add("pvcreate", "vgcreate", "pvremove")
        found = driver.storage_pool_define_xml(pool("logical", f"<name>vg</name><device path='{device}'/>"))
        for overwrite in (None, False):
            with refused(
                ErrorCode.STORAGE_POOL_BUILT,
                f"Storage pool already built: Format of device '{device}' does not match the expected format "
                "'LVM2_member', forced overwrite is necessary",
            ):
                driver.storage_pool_build(found, overwrite=overwrite)
        assert device.read_bytes() == before
        calls(tools)
        driver.storage_pool_build(found, overwrite=True)
        assert calls(tools) == [f"pvcreate {device}", f"vgcreate vg {device}"]

    def test_build_that_fails_gives_the_devices_up(
        self, driver: SessionStorageDriver, tools: Tools, device: Path
    ) -> None:
        tools.answer("blkid", code=2)
        tools.add("pvcreate", "pvremove")
        tools.answer("vgcreate", code=5, err="  A volume group called vg already exists.\n")
        found = driver.storage_pool_define_xml(pool("logical", f"<name>vg</name><device path='{device}'/>"))
        with pytest.raises(VirtError, match="unexpected exit status 5: A volume group called vg already exists"):
            driver.storage_pool_build(found)
        assert calls(tools)[-1] == f"pvremove {device}"

    def test_delete_removes_the_group_and_its_devices(
        self, driver: SessionStorageDriver, tools: Tools, device: Path
    ) -> None:
        tools.add("vgremove", "pvremove")
        found = driver.storage_pool_define_xml(pool("logical", f"<name>vg</name><device path='{device}'/>"))
        driver.storage_pool_delete(found)
        assert calls(tools) == ["vgremove -f vg", f"pvremove {device}"]

    def test_find_sources_tells_of_every_group(self, driver: SessionStorageDriver, tools: Tools) -> None:
        tools.answer("pvs", "  /dev/sdb  vg\n  /dev/sdc\n  /dev/sdd  vg\n  /dev/sde other\n")
        tools.answer("vgscan", code=5)
        assert driver.connect_find_storage_pool_sources("logical") == (
            "<sources>\n"
            "  <source>\n    <device path='/dev/sdb'/>\n    <device path='/dev/sdd'/>\n    <name>vg</name>\n"
            "    <format type='lvm2'/>\n  </source>\n"
            "  <source>\n    <device path='/dev/sde'/>\n    <name>other</name>\n"
            "    <format type='lvm2'/>\n  </source>\n"
            "</sources>\n"
        )

    @pytest.mark.parametrize("name", ["-f", "--config=x", "a/b", "..", "a b"])
    def test_a_name_that_is_an_option_is_no_group(self, driver: SessionStorageDriver, name: str) -> None:
        with pytest.raises(VirtError) as caught:
            driver.storage_pool_define_xml(pool("logical", f"<name>{name}</name>"))
        assert caught.value.code is ErrorCode.INVALID_ARG

    @pytest.mark.parametrize(
        ("volume", "expected"),
        [
            ("<capacity unit='M'>8</capacity>", "-L 8192K vg"),
            ("<capacity>1025</capacity>", "-L 2K vg"),
            (
                "<capacity unit='M'>8</capacity><allocation unit='M'>1</allocation>",
                "-L 1024K --type snapshot --virtualsize 8192K vg",
            ),
            (
                "<capacity unit='M'>8</capacity><allocation>0</allocation>",
                "-L 1K --type snapshot --virtualsize 8192K vg",
            ),
            (
                "<capacity unit='M'>8</capacity><backingStore><path>/dev/vg/origin</path></backingStore>",
                "-L 8192K -s /dev/vg/origin",
            ),
        ],
    )
    def test_volumes_are_made_as_libvirt_makes_them_and_taken_away_where_no_device_appears(
        self, driver: SessionStorageDriver, started: PoolRef, tools: Tools, volume: str, expected: str
    ) -> None:
        tools.add("lvcreate", "lvremove", "lvs")
        calls(tools)
        tools.answer("lvcreate", code=0)
        tools.answer(f"lvcreate --name v {expected}", code=5, err="  Insufficient free space\n")
        with pytest.raises(VirtError, match="Insufficient free space"):
            driver.storage_vol_create_xml(started, f"<volume><name>v</name>{volume}</volume>")
        assert f"lvcreate --name v {expected} --yes" in calls(tools)

    def test_volumes_are_what_lvs_tells(self, driver: SessionStorageDriver, tools: Tools, folder: Path) -> None:
        """Segments are put together, thin pools and inactive volumes left out, hidden origins not shown."""
        rows = [
            "root##u-1#/dev/sdb(0)#linear#1#4194304#4194304#8388608#-wi-ao----#",
            "root##u-1#/dev/sdd(5)#linear#1#4194304#4194304#8388608#-wi-ao----#",
            "stripes##u-2#/dev/sdb(10),/dev/sdd(20)#striped#2#8388608#4194304#8388608#-wi-a-----",
            "snap#root#u-3#/dev/sdb(30)#linear#1#4194304#4194304#4194304#swi-a-s---",
            "hidden#[hidden_vorigin]#u-4#/dev/sdb(40)#linear#1#4194304#4194304#4194304#swi-a-s---",
            "off##u-5#/dev/sdb(50)#linear#1#4194304#4194304#4194304#-wi-------",
            "thin##u-6#pool_tdata(0)#thin-pool#1#4194304#4194304#4194304#twi-a-tz--",
        ]
        # The last column may have a separator behind it.
        tools.answer("lvs", "".join(f"  {row.rstrip('#')}\n" for row in rows))
        for name in ("root", "stripes", "snap", "hidden"):
            (folder / name).write_bytes(b"x" * 512)
        backend = LogicalBackend(Host())
        group = PoolDefinition("logical", "p", "", str(folder), source=PoolSource(name="vg"))
        found = {facts.name: facts for facts in backend.describe_all(group)}
        assert [(facts.name, facts.key, facts.capacity, facts.allocation) for facts in found.values()] == [
            ("root", "u-1", 512, 8388608),
            ("stripes", "u-2", 512, 8388608),
            ("snap", "u-3", 512, 4194304),
            ("hidden", "u-4", 512, 4194304),
        ]
        assert found["root"].extents == (
            Extent("/dev/sdb", 0, 4194304),
            Extent("/dev/sdd", 20971520, 25165824),
        )
        assert found["stripes"].extents == (
            Extent("/dev/sdb", 41943040, 50331648),
            Extent("/dev/sdd", 83886080, 92274688),
        )
        assert found["snap"].backing == BackingDefinition(f"{folder}/root", None)
        assert found["hidden"].backing is None
        assert backend.find(group, "u-2", by_key=True) == Listed("stripes", "u-2", f"{folder}/stripes")
        for name in ("snap", "hidden"):
            with pytest.raises(VirtError, match="is sparse, volume wipe not supported"):
                backend.wipe(group, found[name], WipeAlgorithm.ZERO, None)

    def test_what_lvs_says_and_nobody_understands_is_not_passed_over(
        self, driver: SessionStorageDriver, started: PoolRef, tools: Tools
    ) -> None:
        tools.answer("lvs", "  WARNING: something else\n")
        with pytest.raises(VirtError, match="lvs answers what cannot be understood: WARNING: something else"):
            driver.storage_pool_list_all_volumes(started)
