"""Pools that are managed by a tool: which command lines it gets, what is made of its answers, and of its failures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hostel.drivers.base import PoolRef, VolumeRef, WipeAlgorithm
from hostel.drivers.storage.backends.base import Host, Listed
from hostel.drivers.storage.backends.logical import LogicalBackend
from hostel.drivers.storage.document import BackingDefinition, Extent, PoolDefinition
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.storage import PoolSource
from support.refusal import refused
from support.storage_tools import Tools

LVS = "lvs --separator # --noheadings --units b --unbuffered --nosuffix --options"
VGS = "vgs --separator : --noheadings --units b --unbuffered --nosuffix --options vg_size,vg_free vg"
SETTLED = "udevadm settle"


def pool(kind: str, source: str, path: str = "/dev/nosuch") -> str:
    return f"<pool type='{kind}'><name>p</name><source>{source}</source><target><path>{path}</path></target></pool>"


def calls(tools: Tools) -> list[str]:
    """What was called, without waiting for devices, which depends on the host."""
    return [line for line in tools.calls() if line != SETTLED]


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file in a device's place."""
    path = tmp_path / "device"
    path.write_bytes(b"\xff" * (4 << 20))
    return path


class TestNetworkFileSystem:
    """``netfs``: mount, umount and showmount."""

    def start(self, driver: SessionStorageDriver, tools: Tools, path: Path, source: str) -> list[str]:
        tools.add("mount", "umount")
        with pytest.raises(VirtError):  # nothing is mounted by a tool that only records
            driver.storage_pool_create_xml(pool("netfs", source, str(path)))
        return calls(tools)

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("<host name='h'/><dir path='/d'/><format type='nfs'/>", "-o nodev,nosuid,noexec -t nfs h:/d"),
            ("<host name='h'/><dir path='/d'/>", "-o nodev,nosuid,noexec h:/d"),
            (
                "<host name='h'/><dir path='/d'/><format type='nfs'/><protocol ver='4.1'/>",
                "-o nodev,nosuid,noexec,nfsvers=4.1 -t nfs h:/d",
            ),
            ("<host name='h'/><dir path='d'/><format type='cifs'/>", "-o nodev,nosuid,noexec,guest -t cifs //h/d"),
            (
                "<host name='h'/><dir path='v'/><format type='glusterfs'/>",
                "-o nodev,nosuid,noexec,direct-io-mode=1 -t glusterfs h:v",
            ),
        ],
    )
    def test_it_is_mounted_as_its_document_says(
        self, driver: SessionStorageDriver, tools: Tools, tmp_path: Path, source: str, expected: str
    ) -> None:
        tools.answer("mount", code=32, err="mount.nfs: Connection refused\n")
        line = f"mount {expected} {tmp_path}/mnt"
        assert self.start(driver, tools, tmp_path / "mnt", source)[:1] == [line]

    def test_failure_is_told_in_the_tools_words_and_the_pool_does_not_run(
        self, driver: SessionStorageDriver, tools: Tools, tmp_path: Path
    ) -> None:
        source = "<host name='h'/><dir path='/d'/><format type='nfs'/>"
        found = driver.storage_pool_define_xml(pool("netfs", source, f"{tmp_path}/m"))
        tools.answer("mount", code=32, err="mount.nfs: access denied by server\n\x1b[2J\n")
        words = f"-o nodev,nosuid,noexec -t nfs h:/d {tmp_path}/m"
        with refused(
            ErrorCode.INTERNAL_ERROR,
            f"internal error: Child process ({tmp_path}/tools/mount {words}) unexpected exit status 32: "
            "mount.nfs: access denied by server\n\\x1b[2J\nshowmount -e h lists what it exports, and to whom",
        ):
            driver.storage_pool_create(found)
        assert not driver.storage_pool_is_active(found)

    @pytest.mark.parametrize(
        ("format", "said", "remedy"),
        [
            ("nfs", "mount: /m: bad option; you might need a helper", "install the package nfs-common"),
            ("cifs", "mount: /m: unknown filesystem type 'cifs'", "install the package cifs-utils"),
            ("nfs", "mount.nfs: mount point /m does not exist", "virsh pool-build p makes the directory"),
            ("nfs", "mount.nfs: mounting h:/d failed, reason given by server: No such file", "showmount -e h"),
        ],
    )
    def test_failure_comes_with_what_to_do(
        self, driver: SessionStorageDriver, tools: Tools, tmp_path: Path, format: str, said: str, remedy: str
    ) -> None:
        source = f"<host name='h'/><dir path='/d'/><format type='{format}'/>"
        found = driver.storage_pool_define_xml(pool("netfs", source, f"{tmp_path}/m"))
        tools.answer("mount", code=32, err=f"{said}\n")
        with pytest.raises(VirtError, match=remedy) as caught:
            driver.storage_pool_create(found)
        assert f"unexpected exit status 32: {said}\n" in str(caught.value)

    def test_sources_are_what_the_server_exports_and_its_volumes(
        self, driver: SessionStorageDriver, tools: Tools
    ) -> None:
        tools.answer("showmount", "/srv/a b   *\n/           *\n/home one,two\n")
        tools.answer(
            "gluster", "<cliOutput><volInfo><volumes><volume><name>v</name></volume></volumes></volInfo></cliOutput>"
        )
        assert driver.connect_find_storage_pool_sources("netfs", "<source><host name='h'/></source>") == (
            "<sources>\n"
            "  <source>\n    <host name='h'/>\n    <dir path='/srv/a b'/>\n    <format type='nfs'/>\n  </source>\n"
            "  <source>\n    <host name='h'/>\n    <dir path='/home'/>\n    <format type='nfs'/>\n  </source>\n"
            "  <source>\n    <host name='h'/>\n    <dir path='v'/>\n    <format type='glusterfs'/>\n  </source>\n"
            "</sources>\n"
        )
        assert calls(tools) == [
            "showmount --no-headers --exports h",
            "gluster --xml --log-file=/dev/null volume info all --remote-host=h",
        ]

    def test_a_host_that_has_neither_is_refused_with_why(self, driver: SessionStorageDriver, tools: Tools) -> None:
        tools.answer("showmount", code=1, err="clnt_create: RPC: Unable to receive\n")
        tools.answer("gluster", code=1)
        with pytest.raises(VirtError, match=r"no storage pools were found on host 'h'.*Unable to receive") as caught:
            driver.connect_find_storage_pool_sources("netfs", "<source><host name='h'/></source>")
        assert caught.value.code is ErrorCode.OPERATION_FAILED

    @pytest.mark.parametrize("name", ["-h", "", "a\nb"])
    def test_what_a_tool_would_take_for_an_option_is_no_host(self, driver: SessionStorageDriver, name: str) -> None:
        with pytest.raises(VirtError) as caught:
            driver.connect_find_storage_pool_sources("netfs", f"<source><host name='{name}'/></source>")
        assert caught.value.code is ErrorCode.INVALID_ARG


class TestVirtuozzo:
    """``vstorage``: vstorage-mount."""

    def test_it_is_mounted_with_names_of_its_owner(
        self, driver: SessionStorageDriver, tools: Tools, tmp_path: Path
    ) -> None:
        tools.answer("vstorage-mount", code=1, err="cluster is away\n")
        permissions = "<permissions><mode>0750</mode><owner>0</owner><group>0</group></permissions>"
        document = (
            f"<pool type='vstorage'><name>p</name><source><name>c</name></source><target><path>{tmp_path}/m</path>"
            f"{permissions}</target></pool>"
        )
        with pytest.raises(VirtError, match="cluster is away"):
            driver.storage_pool_create_xml(document)
        assert calls(tools) == [f"vstorage-mount -c c {tmp_path}/m -m 750 -g root -u root"]

    def test_a_tool_that_is_missing_is_told_with_its_package(
        self, driver: SessionStorageDriver, tools: Tools, tmp_path: Path
    ) -> None:
        with refused(
            ErrorCode.SYSTEM_ERROR,
            "Cannot find 'vstorage-mount' in path: No such file or directory; install the package "
            "vstorage-client (of Virtuozzo)",
        ):
            driver.storage_pool_create_xml(pool("vstorage", "<name>c</name>", f"{tmp_path}/m"))


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
        for call in (
            lambda: driver.storage_vol_wipe_pattern(VolumeRef("p", "a", "")),
            lambda: driver.storage_vol_resize(VolumeRef("p", "a", ""), 1 << 20),
        ):
            with pytest.raises(VirtError) as caught:
                call()
            assert caught.value.code is ErrorCode.NO_SUPPORT


class TestIscsi:
    """``iscsi``: iscsiadm, and what the kernel tells in sysfs."""

    IQN = "iqn.2013-12.com.example:t"
    NODE = f"iscsiadm --mode node --portal h:3260,1 --targetname {IQN}"

    @pytest.fixture
    def sysfs(self, tmp_path: Path) -> Path:
        """A session's adapter with a disk, a CD-ROM and a tape; another's disk."""
        root = tmp_path / "sys"
        (root / "class/iscsi_session/session7/device/target4:0:0").mkdir(parents=True)
        for place, kind, name in (
            ("4:0:0:1", 0, "sda"),
            ("4:0:0:2", 5, "sr0"),
            ("4:0:0:3", 1, "st0"),
            ("9:0:0:1", 0, "sdz"),
        ):
            unit = root / "bus/scsi/devices" / place
            (unit / "block" / name).mkdir(parents=True)
            (unit / "type").write_text(f"{kind}\n")
        for name in ("sda", "sr0", "st0", "sdz"):
            (tmp_path / "dev").mkdir(exist_ok=True)
            (tmp_path / "dev" / name).write_bytes(b"x" * 1024)
        return root

    @pytest.fixture
    def driver(self, directories: Directories, sysfs: Path, tmp_path: Path) -> SessionStorageDriver:
        host = Host(str(sysfs), str(tmp_path / "dev"), lambda reference, usage: f"{reference.usage}-{usage}".encode())
        return SessionStorageDriver(directories, host)

    def document(self, extra: str = "") -> str:
        source = f"<host name='h'/><device path='{self.IQN}'/>{extra}"
        return pool("iscsi", source, "/dev")

    def sessions(self, tools: Tools) -> None:
        """Let the kernel be logged in from the next login on."""
        told = f"tcp: [3] h:3260,1 other (non-flash)\ntcp: [7] h:3260,1 {self.IQN} (non-flash)\n"
        tools.answer("iscsiadm", "")
        tools.answer("iscsiadm --mode session", code=21, err="iscsiadm: No active sessions.\n")
        rows = [
            ["iscsiadm --mode session -r", 0, "", "", ""],
            ["iscsiadm --mode session", 0, told, "", ""],
            ["iscsiadm", 0, "", "", ""],
        ]
        state = f"open(folder + '/answers', 'w').write({json.dumps(rows)!r})"
        tools.answer(f"{self.NODE} --login", run=state)

    def test_the_kernel_logs_in_and_the_targets_units_are_the_volumes(
        self, driver: SessionStorageDriver, tools: Tools, tmp_path: Path
    ) -> None:
        self.sessions(tools)
        found = driver.storage_pool_create_xml(self.document())
        assert calls(tools) == [
            "iscsiadm --mode session",
            f"{self.NODE} --op new",
            f"{self.NODE} --login",
            "iscsiadm --mode session",
            "iscsiadm --mode session -r 7 -R",
        ]
        assert driver.storage_pool_is_active(found)
        rows = driver.storage_pool_list_volume_rows(found)
        assert [(row.volume.name, row.path) for row in rows] == [
            ("unit:0:0:1", f"{tmp_path}/dev/sda"),
            ("unit:0:0:2", f"{tmp_path}/dev/sr0"),
        ]
        assert driver.storage_pool_get_info(found)[1:] == (2048, 2048, 0)
        calls(tools)
        driver.storage_pool_destroy(found)
        assert calls(tools)[-1] == f"{self.NODE} --logout"

    def test_a_password_is_given_and_never_told(self, driver: SessionStorageDriver, tools: Tools) -> None:
        self.sessions(tools)
        tools.answer(f"{self.NODE} --op update --name node.session.auth.password", code=7, err="refused\n")
        auth = "<auth type='chap' username='me'><secret usage='target'/></auth>"
        with pytest.raises(VirtError, match="refused") as caught:
            driver.storage_pool_create_xml(self.document(auth))
        assert "target-iscsi" not in str(caught.value) and "***" in str(caught.value)
        assert calls(tools)[2:] == [
            f"{self.NODE} --op update --name node.session.auth.authmethod --value CHAP",
            f"{self.NODE} --op update --name node.session.auth.username --value me",
            f"{self.NODE} --op update --name node.session.auth.password --value target-iscsi",
        ]

    def test_an_initiator_has_its_own_interface(self, driver: SessionStorageDriver, tools: Tools) -> None:
        self.sessions(tools)
        tools.answer(
            "iscsiadm --mode iface",
            "default tcp,<empty>,<empty>,<empty>,<empty>\nmine tcp,<empty>,<empty>,<empty>,iqn.us\n",
        )
        driver.storage_pool_create_xml(self.document("<initiator><iqn name='iqn.us'/></initiator>"))
        assert f"{self.NODE} --login --interface mine" in calls(tools)

    def test_sources_are_the_servers_targets(self, driver: SessionStorageDriver, tools: Tools) -> None:
        tools.answer("iscsiadm --mode discovery", "1.2.3.4:3260,1 iqn.one\n1.2.3.4:3260,1 iqn.two\n")
        found = driver.connect_find_storage_pool_sources("iscsi", "<source><host name='1.2.3.4'/></source>")
        assert calls(tools) == [
            "iscsiadm --mode discovery --type sendtargets --portal 1.2.3.4:3260,1 --op nonpersistent"
        ]
        assert found.count("<host name='1.2.3.4' port='3260'/>") == 2
        assert "<device path='iqn.one'/>" in found and "<device path='iqn.two'/>" in found

    def test_sources_for_an_unknown_initiator_are_refused(self, driver: SessionStorageDriver, tools: Tools) -> None:
        tools.answer("iscsiadm --mode iface", "default tcp,<empty>,<empty>,<empty>,<empty>\n")
        source = "<source><host name='h'/><initiator><iqn name='iqn.us'/></initiator></source>"
        with refused(ErrorCode.OPERATION_FAILED, "operation failed: no iSCSI interface defined for IQN iqn.us"):
            driver.connect_find_storage_pool_sources("iscsi", source)

    def test_units_of_a_scsi_adapter_are_found_by_its_name(
        self, driver: SessionStorageDriver, sysfs: Path, tmp_path: Path
    ) -> None:
        adapter = sysfs / "class/scsi_host/host4"
        adapter.mkdir(parents=True)
        (adapter / "scan").touch()
        found = driver.storage_pool_create_xml(pool("scsi", "<adapter type='scsi_host' name='scsi_host4'/>", "/dev"))
        assert (adapter / "scan").read_bytes() == b"- - -\0"
        assert [row.volume.name for row in driver.storage_pool_list_volume_rows(found)] == ["unit:0:0:1", "unit:0:0:2"]
        (adapter / "scan").unlink()
        adapter.rmdir()
        assert not driver.storage_pool_is_active(found)

    def test_a_virtual_port_is_made_for_a_pool_and_removed_where_it_is_managed(
        self, driver: SessionStorageDriver, sysfs: Path
    ) -> None:
        for name, node, port in (("host4", "0x1", "0x2"), ("host5", "0x3", "0x4")):
            folder = sysfs / "class/fc_host" / name
            folder.mkdir(parents=True)
            (folder / "node_name").write_text(node)
            (folder / "port_name").write_text(port)
            (folder / "vport_create").touch()
            (folder / "vport_delete").touch()
            (sysfs / "class/scsi_host" / name).mkdir(parents=True)
            (sysfs / "class/scsi_host" / name / "scan").touch()
        names = "wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'"
        wanted = f"<adapter type='fc_host' parent='scsi_host5' managed='yes' {names}/>"
        with pytest.raises(VirtError, match="Failed to find SCSI host with wwnn='20000000c9831b4b'"):
            # The kernel here makes none.
            driver.storage_pool_create_xml(pool("scsi", wanted, "/dev"))
        assert (sysfs / "class/fc_host/host5/vport_create").read_text() == "10000000c9831b4b:20000000c9831b4b"


def test_multipath_devices_are_what_the_device_mapper_tells(
    directories: Directories, tools: Tools, tmp_path: Path
) -> None:
    (tmp_path / "dev/mapper").mkdir(parents=True)
    (tmp_path / "dev/mapper/mpatha").write_bytes(b"x" * 4096)
    tools.answer("dmsetup ls", "mpatha\t(253:5)\nmpathb  (253, 6)\n")
    driver = SessionStorageDriver(directories, Host(dev=str(tmp_path / "dev")))
    found = driver.storage_pool_create_xml(pool("mpath", "", "/dev/mapper"))
    assert [row.volume.name for row in driver.storage_pool_list_volume_rows(found)] == ["dm-5"]
    assert driver.storage_pool_get_info(found)[1:] == (4096, 4096, 0)
    tools.answer("dmsetup ls", "No devices found\n")
    assert driver.storage_pool_list_all_volumes(found) == []


def test_a_tool_that_does_not_end_is_stopped(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    from hostel.drivers.storage.backends import tool

    tools.answer("slow", run="import time; time.sleep(60)")
    with pytest.raises(VirtError, match="has not ended within 1 seconds, and was stopped") as caught:
        tool.run(["slow"], timeout=1)
    assert caught.value.code is ErrorCode.OPERATION_TIMEOUT


def test_tools_of_administrators_are_found_whatever_the_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    from hostel.drivers.storage.backends import tool

    monkeypatch.setenv("PATH", "/nosuch")
    found = tool.find("losetup")
    assert found is not None and os.access(found, os.X_OK)
