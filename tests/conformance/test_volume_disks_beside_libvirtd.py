"""Disks given by pool and volume, and what a running machine's document says of them: libvirt's daemon and ours."""

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
    "<disk type='volume' device='{device}'><driver name='qemu' type='{fmt}'/>"
    "<source pool='p' volume='{name}'{more}/><target dev='{dev}' bus='{bus}'/></disk>"
)


def disk(dev: str, name: str, fmt: str = "raw", more: str = "") -> str:
    """A disk on a volume; in ``hdc`` it is a CD-ROM."""
    device, bus = ("cdrom", "ide") if dev == "hdc" else ("disk", "virtio")
    return _DISK.format(device=device, bus=bus, fmt=fmt, name=name, dev=dev, more=more)


FILES: Final = {
    "pool.xml": "<pool type='dir'><name>p</name><target><path>HOME/pool</path></target></pool>",
    "domain.xml": (
        "<domain type='qemu'><name>w</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>"
        "<emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>"
        + disk("vda", "over.qcow2", "qcow2")
        + disk("vdb", "raw.img")
        + disk("hdc", "cd.iso", more=" startupPolicy='optional'")
        + "</devices></domain>"
    ),
    "plug.xml": disk("vdc", "own.qcow2", "qcow2"),
    "other.xml": disk("hdc", "cd2.iso"),
    "stray.xml": disk("vdd", "cd.iso", more=" file='/nowhere' dev='/dev/null'"),
    "mode.xml": disk("vdd", "cd2.iso", more=" mode='host'"),
    "file.xml": (
        "<disk type='file' device='cdrom'><source file='HOME/file.iso' pool='p' volume='cd.iso'/>"
        "<target dev='hdc' bus='ide'/></disk>"
    ),
    "chain.xml": (
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='HOME/top.qcow2'/>"
        "<backingStore type='volume'><format type='raw'/><source pool='p' volume='raw2.img'/><backingStore/>"
        "</backingStore><target dev='vde' bus='virtio'/></disk>"
    ),
}
# What they have of each image by the way, and when.
_NUMBERS: Final = re.compile(r"(reqs|bytes|times|physical)=\d+")
_DISKS: Final = "dumpxml w --xpath //disk; domblklist w --details; domblklist w --details --inactive"
_VDA: Final = """dumpxml w --xpath '//disk[target/@dev="vda"]'"""
_OVERLAYS: Final = " ".join(
    f"--diskspec {dev},{what}"
    for dev, what in (
        *((dev, f"file=HOME/s.{dev}") for dev in ("vda", "vdb", "vdc")),
        *((dev, "snapshot=no") for dev in ("vdd", "vde")),
    )
)
LINES: Final = f"""
pool-define HOME/pool.xml; define HOME/domain.xml; start w --paused; pool-start p; start w --paused
{_DISKS}; dumpxml w --xpath //disk --inactive
domstats w --block --backing --raw; domblkinfo w vda; domblkinfo w HOME/pool/over.qcow2; domblkinfo w over.qcow2
attach-device w HOME/plug.xml --live; attach-device w HOME/stray.xml --live; attach-device w HOME/mode.xml --live
attach-device w HOME/stray.xml --config; {_DISKS}; dumpxml w --xpath //disk --inactive
attach-device w HOME/chain.xml --live; detach-disk w HOME/pool/own.qcow2; detach-disk w vdd --live; {_DISKS}
update-device w HOME/other.xml --live; {_DISKS}; update-device w HOME/other.xml --live; update-device w HOME/file.xml
{_DISKS}; change-media w hdc --eject; domblklist w --details; update-device w HOME/other.xml --live --config; {_DISKS}
snapshot-create-as w s --disk-only {_OVERLAYS}
{_DISKS}; domstats w --block --backing --raw; snapshot-dumpxml w s --xpath //domain//disk/source
blockcommit w vda --active --shallow --wait; {_VDA}; blockjob w vda --pivot; {_DISKS}
blockcommit w vdb --active --wait --pivot; blockpull w vdc --wait; {_DISKS}
blockcopy w vda HOME/copy --transient-job --wait; {_VDA}; blockjob w vda --pivot; {_DISKS}
managedsave w; managedsave-dumpxml w --xpath //disk/source; start w; {_DISKS}
save w HOME/saved; save-image-dumpxml HOME/saved --xpath //disk/source; restore HOME/saved; {_DISKS}
detach-device w HOME/other.xml --live; pool-destroy p; {_DISKS}; domblkinfo w vdb
destroy w; start w; snapshot-delete w s --metadata; undefine w
"""


def fill(home: Path) -> None:
    pool = home / "pool"
    pool.mkdir(parents=True)
    for path in (pool / "raw.img", pool / "raw2.img", pool / "cd.iso", pool / "cd2.iso", home / "file.iso"):
        path.write_bytes(bytes(MIB))
    for name in ("base.qcow2", "own.qcow2"):
        image.qemu_img("create", "-q", "-f", "qcow2", pool / name, MIB)
    image.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", pool / "base.qcow2", pool / "over.qcow2")
    image.qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", pool / "raw2.img", home / "top.qcow2")
    for name, text in FILES.items():
        (home / name).write_text(text.replace("HOME", str(home)))


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    with twin_homes("vd-", fill) as found:
        yield found


def test_running_machine_names_the_volumes_that_its_disks_are_on_as_libvirt_does(homes: tuple[Path, Path]) -> None:
    found = differences(LINES, homes, _NUMBERS)
    assert not found, "\n".join(found)
