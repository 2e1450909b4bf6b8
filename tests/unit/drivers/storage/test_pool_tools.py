"""Pools that a tool mounts or tells of: which command lines it gets, and what is made of its failures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers.storage.backends.base import Host
from hostel.drivers.storage.driver import SessionStorageDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused
from support.storage_tools import Tools, calls, pool


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
