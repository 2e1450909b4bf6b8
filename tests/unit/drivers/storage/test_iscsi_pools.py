"""Pools of SCSI units: which command lines iscsiadm gets, and what the kernel tells in sysfs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostel.drivers.storage.backends.base import Host
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused
from support.storage_tools import Tools, calls, pool


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
