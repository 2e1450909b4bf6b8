"""Devices of the host through our virsh beside real virsh and a real libvirtd, and by libvirt's schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from hostel.drivers.nodedev.driver import SysfsNodeDeviceDriver
from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.objects import Connection
from support import libvirtd
from support.sysfs import furnish
from support.virsh import run_lines

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]
SCHEMA = Path("/usr/share/libvirt/schemas/nodedev.rng")
INVENTED = ("computer", "scsi_host1", "scsi_host2", "scsi_host11")


@pytest.fixture(scope="module")
def real() -> Iterator[libvirtd.Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


def ours(directories: Directories, uri: str, *words: str) -> str:
    """Our virsh, as somebody who is not root: so is the real daemon."""

    def opener(uri: str, *, read_only: bool) -> Connection:
        drivers = open_drivers(uri, directories)
        if uri.startswith("qemu"):
            drivers = drivers._replace(node_device=SysfsNodeDeviceDriver(privileged=False))
        return Connection(drivers, read_only=read_only)

    ((code, out, err),) = run_lines(uri, opener, [words], quiet=True)
    return f"{code}\n{out}{err}"


def theirs(real: libvirtd.Libvirtd, *words: str) -> str:
    done = real.virsh(*words, check=False)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_lists_and_trees_are_virshs(real: libvirtd.Libvirtd, tmp_path: Path) -> None:
    directories = Directories.under(tmp_path)
    for words in (
        ("nodedev-list",),
        ("nodedev-list", "--tree"),
        ("nodedev-list", "--cap", "net"),
        ("nodedev-list", "--cap", "net,pci"),
        ("nodedev-list", "--cap", "scsi_host"),
        ("nodedev-list", "--all"),
        ("nodedev-list", "--cap", "nothing"),
        ("nodedev-list", "--tree", "--cap", "net"),
        ("nodedev-list", "--all", "--inactive"),
        ("nodedev-dumpxml", "nothing"),
        ("nodedev-info", "computer"),
        ("nodedev-reset", "nothing"),
    ):
        assert ours(directories, "qemu:///session", *words) == theirs(real, *words), words


def test_every_document_of_this_host_is_libvirts(real: libvirtd.Libvirtd, tmp_path: Path) -> None:
    names = real.virsh("nodedev-list").stdout.split()
    assert "computer" in names
    for name in names:
        words = ("nodedev-dumpxml", name)
        assert ours(Directories.under(tmp_path), "qemu:///session", *words) == theirs(real, *words)


def test_the_invented_devices_are_libvirts(tmp_path: Path) -> None:
    import subprocess

    for name in INVENTED:
        words = ("nodedev-dumpxml", name)
        real = subprocess.run(
            ["virsh", "-q", "-c", "test:///default", *words], capture_output=True, text=True, timeout=60, check=True
        )
        assert ours(Directories.under(tmp_path), "test:///default", *words) == f"0\n{real.stdout}"


def test_devices_of_every_kind_are_valid(tmp_path: Path) -> None:
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    driver = SysfsNodeDeviceDriver(furnish(tmp_path).root, privileged=True)
    for ref in driver.connect_list_all_node_devices():
        xml = driver.node_device_get_xml_desc(ref)
        assert schema.validate(etree.fromstring(xml)), f"{xml}\n{schema.error_log}"
