"""Machines with nearly every device that the QEMU driver has, on both boards."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

_HEAD: Final = """<domain type='qemu'><name>g</name><genid/><memory unit='MiB'>64</memory>
<vcpu current='1'>2</vcpu><iothreads>2</iothreads>
<os><type machine='{machine}'>hvm</type><bootmenu enable='yes' timeout='100'/><bios rebootTimeout='10'/></os>
<features><acpi/><apic/><pae/><vmcoreinfo state='on'/><vmport state='off'/></features>{cpu}
<clock offset='localtime'><timer name='rtc' tickpolicy='catchup'/></clock>
<on_reboot>destroy</on_reboot><pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='yes'/></pm><devices>
"""
_INTERFACES: Final = """<interface type='user'><model type='virtio'/><link state='down'/><boot order='3'/></interface>
<interface type='user'><model type='e1000'/></interface>
"""
_DEVICES: Final = """<controller type='scsi' model='virtio-scsi'/>
<serial type='pty'/><serial type='file'><source path='{home}/serial'/></serial><parallel type='null'/>
<console type='pty'><target type='virtio'/></console>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='pty'><target type='virtio' name='x.y'/></channel>
<input type='tablet' bus='usb'/><input type='keyboard' bus='virtio'/><input type='mouse' bus='virtio'/>
<graphics type='vnc' port='-1' passwd='x' sharePolicy='ignore'/>
<sound model='ich6'/><sound model='ac97'/><sound model='usb'/><video><model type='{video}'/></video>
<hub type='usb'/><watchdog model='i6300esb' action='reset'/>
<memballoon model='virtio' autodeflate='on'><stats period='5'/></memballoon>
<rng model='virtio'><rate bytes='1024'/><backend model='random'>/dev/urandom</backend></rng>
<rng model='virtio'><backend model='builtin'/></rng><panic model='isa'/>
"""
_USB2: Final = "".join(
    f"<controller type='usb' model='ich9-{model}'/>" for model in ("ehci1", "uhci1", "uhci2", "uhci3")
)
_NEHALEM: Final = """<cpu mode='custom' match='exact'><model>Nehalem</model><feature policy='require' name='aes'/>
<topology sockets='1' dies='1' cores='2' threads='1'/></cpu>"""
_BRIDGES: Final = """<controller type='pci' index='1' model='pcie-root-port'/>
<controller type='pci' index='2' model='pcie-to-pci-bridge'/>"""
# By name: machine, screen, other devices (None is a disk on the board's own controller), processor.
_KINDS: Final[dict[str, tuple[str, str, str | None, str]]] = {
    "pc": ("pc", "vga", None, ""),
    "pc with USB 2": ("pc", "cirrus", _USB2, _NEHALEM),
    "pc with a bridge": ("pc", "vmvga", "<controller type='pci' index='1' model='pci-bridge'/>", ""),
    "q35": ("q35", "virtio", None, "<cpu><topology sockets='2' dies='1' cores='1' threads='1'/></cpu>"),
    "q35 with bridges": ("q35", "qxl", _BRIDGES, ""),
    "q35 with USB 3": ("q35", "bochs", "<controller type='usb' model='nec-xhci' ports='8'/>", ""),
}
MACHINES: Final = list(_KINDS)


def disk(path: Path | None, dev: str, bus: str, more: str = "", *, device: str = "disk", fmt: str = "raw") -> str:
    """A disk; without a path an empty drive."""
    source = "" if path is None else f"<source file='{path}'/>"
    head = f"<disk type='file' device='{device}'><driver name='qemu' type='{fmt}'/>{source}"
    return f"{head}<target dev='{dev}' bus='{bus}'/>{more}</disk>"


def machine(name: str, home: Path, *, interfaces: bool = True) -> str:
    """The document of a machine, whose images are in a directory; they are made there."""
    board, video, more, cpu = _KINDS[name]
    images = {letter: home / f"{letter}.img" for letter in "abcde"}
    for path in images.values():
        path.write_bytes(bytes(1 << 20))
    (home / "floppy.img").write_bytes(bytes(1474560))
    overlay = home / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", images["a"], overlay], check=True)
    backing = (
        f"<backingStore type='file'><format type='raw'/><source file='{images['a']}'/><backingStore/></backingStore>"
    )
    own = disk(images["e"], *(("sdz", "sata") if board == "q35" else ("hda", "ide")))
    disks = [
        disk(images["b"], "vda", "virtio", "<serial>abc</serial>"),
        disk(overlay, "vdb", "virtio", backing, fmt="qcow2"),
        disk(images["c"], "sda", "scsi"),
        disk(None, "sdc", "scsi", device="cdrom"),
        disk(images["d"], "sdb", "usb"),
        disk(home / "floppy.img", "fda", "fdc", device="floppy"),
        own if more is None else more,
    ]
    devices = "".join(disks) + (_INTERFACES if interfaces else "") + _DEVICES.format(home=home, video=video)
    return f"{_HEAD.format(machine=board, cpu=cpu)}{devices}</devices></domain>"
