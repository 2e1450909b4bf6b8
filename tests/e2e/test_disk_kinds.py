"""Disks that are no files: another program's over vhost-user, a directory, a unit with persistent reservations."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers import procstat
from hostel.drivers.base import StartFlag
from hostel.drivers.qemu import process
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.helper import reservations
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from hostel.objects import Connection
from support.daemon import daemon
from support.session import domain_xml, run

pytestmark = pytest.mark.qemu
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><devices>"
MIB = 1 << 20


def machine(home: Path, *devices: str) -> str:
    """A machine whose memory other programs may see."""
    return domain_xml(home, *devices).replace("<devices>", SHARED)


def test_a_guest_boots_from_our_own_back_end(tmp_path: Path, connection: Connection) -> None:
    (tmp_path / "disk.raw").write_bytes(guest.image(label="vhost", size=MIB))
    path = tmp_path / "vhost.sock"
    element = (
        f"<disk type='vhostuser' device='disk' snapshot='no'><driver name='qemu' type='raw'/>"
        f"<source type='unix' path='{path}'><reconnect enabled='yes' timeout='10'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    node = f"driver=raw,node-name=disk,file.driver=file,file.filename={tmp_path}/disk.raw"
    export = f"vhost-user-blk,id=guest,node-name=disk,addr.type=unix,addr.path={path},writable=on"
    with daemon(tmp_path, "--blockdev", node, "--export", export):
        report = run(connection.define_domain(machine(tmp_path, element)), tmp_path)
    assert (report.label, report.drive.size) == ("vhost", MIB)


def test_a_directory_is_a_disk(tmp_path: Path, driver: QemuDriver) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/hello").write_text("hello")
    element = (
        f"<disk type='dir' device='disk'><driver name='qemu' type='fat'/><source dir='{tmp_path}/files'/>"
        "<target dev='vdb' bus='virtio'/><readonly/></disk>"
    )
    domain = driver.domain_create_xml(domain_xml(tmp_path, element), StartFlag.PAUSED)
    said = driver.domain_qemu_monitor_command(domain, "info block", human=True)
    assert "vvfat" in said or f"{tmp_path}/files" in said


@pytest.mark.requires_tool("qemu-pr-helper")
def test_reservations_are_made_by_a_helper_that_is_there_before_qemu(tmp_path: Path) -> None:
    element = (
        "<disk type='block' device='lun'><driver name='qemu' type='raw'/><source dev='/dev/sdx'>"
        "<reservations managed='yes'/></source><target dev='sda' bus='scsi'/></disk>"
    )
    document = Domain.parse(domain_xml(tmp_path, element))
    if os.geteuid() != 0:
        with pytest.raises(VirtError, match="the helper needs root"):
            reservations.helpers(document, tmp_path)
        return
    (helper,) = reservations.helpers(document, tmp_path)
    pid = process.spawn(["sleep", "60"], tmp_path, tmp_path / "log", helpers=[helper])
    started = procstat.start_time(pid)
    assert started is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(helper.socket))
        assert client.recv(4) == bytes(4)  # the features that it offers: none
    assert process.end(pid, started)
    assert process.exit_status(tmp_path, 10) is not None
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):
        client.connect(str(helper.socket))
