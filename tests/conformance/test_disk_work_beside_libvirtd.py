"""What is done to the disks of one machine, step by step, off and running: real virsh on libvirt's daemon and on ours.

Its disks: an overlay, an image of its own, one that other guests write, one that is only read, and an empty drive.
"""

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
_DISK: Final = (
    "<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/><source file='HOME/{name}'/>"
    "<target dev='{dev}' bus='{bus}'/>{more}</disk>"
)
_DISKS: Final = "".join(
    _DISK.format(dev=dev, name=name, fmt=fmt, more=more, bus="scsi" if dev.startswith("sd") else "virtio")
    for dev, name, fmt, more in (
        ("vda", "over.qcow2", "qcow2", ""),
        ("vdb", "own.qcow2", "qcow2", ""),
        ("sda", "shared.raw", "raw", "<shareable/>"),
        ("sdb", "read.raw", "raw", "<readonly/>"),
    )
)
DOMAIN: Final = (
    "<domain type='qemu'><name>w</name><memory unit='MiB'>32</memory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>"
    "<emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>"
    f"<controller type='scsi' model='virtio-scsi'/>{_DISKS}"
    "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk></devices></domain>"
)
# How overlays were made, and when, differs, and so do the numbers of images; an ejected drive keeps its own there.
_NUMBERS: Final = re.compile(r"(reqs|bytes|times|physical)=\d+|\n *block\.\d+\.backingIndex=\d+")
_SEEN: Final = "domblklist w --details; domstats w --block --raw --backing"
LINES: Final = f"""
define HOME/domain.xml; {_SEEN}
snapshot-create-as w all --disk-only; snapshot-create-as w all --disk-only --diskspec sda,snapshot=external
detach-disk w sda --config; domblklist w --details
snapshot-create-as w inside --diskspec sdb,snapshot=no --diskspec hdc,snapshot=no
snapshot-create-as w part --diskspec vdb,snapshot=no; snapshot-create-as w mixed --diskspec vdb,snapshot=external
snapshot-revert w inside; snapshot-delete w inside; snapshot-list w --name
snapshot-create-as w quiet --disk-only --quiesce --diskspec vda,snapshot=no; domblklist w --details
start w --paused; {_SEEN}
snapshot-create-as w waits --disk-only --diskspec vdb,snapshot=manual; domstate w; resume w
snapshot-create-as w hand --disk-only --diskspec vdb,snapshot=manual; domstate w
snapshot-create-as w none --disk-only --diskspec vda,snapshot=manual --diskspec vdb,snapshot=no
attach-disk w HOME/more.raw hdc --type cdrom --mode readonly --live; {_SEEN}
attach-disk w HOME/more.raw hdc --type cdrom --mode readonly --config; change-media w hdc --eject --live
attach-disk w HOME/more.raw vdb --type cdrom --live; attach-disk w HOME/more.raw vdb --live
attach-disk w HOME/more.raw vdc --live --config; domblklist w --inactive --details; {_SEEN}
blockcopy w vdb HOME/none --reuse-external --transient-job; blockcopy w vdb HOME/more.raw --transient-job
blockcopy w vdb HOME/more.raw --blockdev --transient-job; blockcopy w vdb HOME/copy --wait
blockcopy w vdb HOME/copy --transient-job --wait; dumpxml w --xpath //mirror/@*; {_SEEN}
snapshot-create-as w busy --disk-only; snapshot-create-as w busy --memspec HOME/memory --diskspec vdb,snapshot=no
blockpull w vdb; blockcommit w vdb --active; blockresize w vdb 2M; detach-disk w vdb --live; managedsave w
blockjob w vdb --abort; blockresize w vdb 2M; blockresize w hdc 2M; blockresize w sdb 2M; {_SEEN}
snapshot-create-as w reuse --disk-only --reuse-external
checkpoint-create-as w empty --diskspec vda,checkpoint=no; checkpoint-list w --name
checkpoint-create-as w one --diskspec vda --diskspec vdb; checkpoint-create-as w two --diskspec vda
snapshot-create-as w over --disk-only --diskspec vdc,snapshot=no; checkpoint-delete w one; checkpoint-list w --name
checkpoint-delete w empty; checkpoint-delete w two; checkpoint-list w --tree; {_SEEN}
blockcommit w vda --active --pivot --shallow; blockcommit w vdb --active --pivot; {_SEEN}
destroy w; domblklist w --details; snapshot-list w --tree; undefine w; undefine w --snapshots-metadata; domstate w
"""


def fill(home: Path) -> None:
    for name in ("shared.raw", "read.raw", "more.raw"):
        (home / name).write_bytes(bytes(MIB))
    for name in ("base.qcow2", "own.qcow2"):
        image.qemu_img("create", "-q", "-f", "qcow2", home / name, MIB)
    image.write(home / "base.qcow2", "qcow2", (0, b"\x03" * 300_000))
    image.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", home / "base.qcow2", home / "over.qcow2")
    (home / "domain.xml").write_text(DOMAIN.replace("HOME", str(home)))


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    with twin_homes("dw-", fill) as found:
        yield found


def test_what_is_done_to_disks_ends_as_with_libvirt(homes: tuple[Path, Path]) -> None:
    found = differences(LINES, homes, _NUMBERS)
    assert not found, "\n".join(found)
