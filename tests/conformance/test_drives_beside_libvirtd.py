"""Drives with media and without, limits and jobs, in a running machine's document: libvirt's daemon and ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support import image
from support.beside import differences, twin_homes

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("qemu-img"),
]
MIB: Final = 1 << 20
_LIMIT: Final = "<iotune><read_iops_sec>10</read_iops_sec></iotune>"
DOMAIN: Final = (
    "<domain type='qemu'><name>w</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
    "<emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>"
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='HOME/over.qcow2'/>"
    "<target dev='vda' bus='virtio'/><iotune><write_bytes_sec>100000</write_bytes_sec></iotune></disk>"
    "<disk type='file' device='cdrom'><source file='HOME/a.iso'/><target dev='hdc' bus='ide'/></disk>"
    f"<disk type='block' device='cdrom'><target dev='hdd' bus='ide'/>{_LIMIT}</disk>"
    "<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk></devices></domain>"
)
_NUMBERS: Final = re.compile(r"(reqs|bytes|times|physical)=\d+|\n *block\.\d+\.backingIndex=\d+")
_DISKS: Final = "dumpxml w --xpath //devices/disk; dumpxml w --xpath //devices/disk --inactive"
LINES: Final = f"""
define HOME/domain.xml; start w --paused; {_DISKS}; blkdeviotune w vda; blkdeviotune w vdz
blkdeviotune w hdd --read-iops-sec 20 --live; change-media w hdd HOME/b.iso --insert; blkdeviotune w hdd; {_DISKS}
change-media w hdc --eject; change-media w fda HOME/b.iso --insert; {_DISKS}; managedsave w
managedsave-dumpxml w --xpath //disk/driver; start w --paused; {_DISKS}; change-media w hdc HOME/b.iso; {_DISKS}
blockcopy w vda HOME/copy --shallow --transient-job --wait; {_DISKS}; domstats w --block --backing --raw
blockjob w vda --pivot; {_DISKS}; blockpull w vda --wait; {_DISKS}
"""


def fill(home: Path) -> None:
    for name in ("a.iso", "b.iso"):
        (home / name).write_bytes(bytes(1440 << 10))
    image.qemu_img("create", "-q", "-f", "qcow2", home / "base.qcow2", MIB)
    image.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", home / "base.qcow2", home / "over.qcow2")
    (home / "domain.xml").write_text(DOMAIN.replace("HOME", str(home)))


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    with twin_homes("dr-", fill) as found:
        yield found


def test_drives_are_shown_as_libvirt_shows_them_with_media_and_without(homes: tuple[Path, Path]) -> None:
    found = differences(LINES, homes, _NUMBERS)
    assert not found, "\n".join(found)
