"""Devices of every kind, to be attached, detached and updated: the same on libvirt and here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

DOMAIN: Final = (
    "<domain type='qemu'><name>guest</name><maxMemory slots='4' unit='MiB'>512</maxMemory>"
    "<memory unit='MiB'>64</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>"
    "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu><devices>"
    "<controller type='usb' index='0' model='qemu-xhci'/><controller type='scsi' index='0' model='virtio-scsi'/>"
    "<controller type='virtio-serial' index='0'/>"
    "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>"
    "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{home}/disk.raw'/>"
    "<target dev='sda' bus='scsi'/></disk>"
    "<interface type='user'><mac address='52:54:00:00:00:01'/><model type='e1000'/></interface>"
    "<serial type='pty'/><sound model='ac97'/><input type='tablet' bus='usb'/>"
    "<graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='secret'/><video><model type='vga'/></video>"
    "<memballoon model='virtio'/></devices></domain>"
)
_CHANNEL: Final = "<channel type='pty'><target type='virtio' name='{name}'/></channel>"
# By kind: the document; ``{home}`` is a directory of files.
DEVICES: Final[dict[str, str]] = {
    "serial on ISA": "<serial type='null'><target type='isa-serial' port='1'/></serial>",
    "serial on USB": "<serial type='null'><target type='usb-serial' port='1'/></serial>",
    "serial as the first": "<serial type='pty'><target type='isa-serial' port='0'/></serial>",
    "parallel": "<parallel type='null'><target port='0'/></parallel>",
    "console on virtio": "<console type='null'><target type='virtio' port='1'/></console>",
    "console on serial": "<console type='null'><target type='serial' port='1'/></console>",
    "channel": _CHANNEL.format(name="org.example.0"),
    "channel on a socket": (
        "<channel type='unix'><source mode='bind' path='{home}/chan.sock'/><target type='virtio' name='org.example.1'/>"
        "</channel>"
    ),
    "filesystem over 9p": "<filesystem type='mount'><source dir='{home}'/><target dir='tag'/></filesystem>",
    "redirdev": "<redirdev bus='usb' type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/></redirdev>",
    "watchdog": "<watchdog model='i6300esb' action='none'/>",
    "watchdog on ISA": "<watchdog model='ib700' action='none'/>",
    "rng": "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
    "memory": "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>",
    "input on USB": "<input type='mouse' bus='usb'/>",
    "input on virtio": "<input type='keyboard' bus='virtio'/>",
    "input on PS/2": "<input type='mouse' bus='ps2'/>",
    "shmem": "<shmem name='hd-{port}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>",
    "old shmem": "<shmem name='hd-{port}'><model type='ivshmem'/><size unit='M'>1</size></shmem>",
    "sound": "<sound model='es1370'/>",
    "video": "<video><model type='virtio'/></video>",
    "graphics of another type": "<graphics type='sdl'/>",
    "hub": "<hub type='usb'/>",
    "memballoon": "<memballoon model='virtio'/>",
    "panic": "<panic model='isa'/>",
    "tpm": "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
    "audio": "<audio id='2' type='none'/>",
    "controller of another type": "<controller type='sata' index='3'/>",
    "controller": "<controller type='scsi' index='5' model='virtio-scsi'/>",
    "floppy": "<disk type='file' device='floppy'><source file='{home}/disk.raw'/><target dev='fda' bus='fdc'/></disk>",
    "disk on IDE": "<disk type='file'><source file='{home}/more.raw'/><target dev='hdb' bus='ide'/></disk>",
    "disk on SATA": "<disk type='file'><source file='{home}/more.raw'/><target dev='sdb' bus='sata'/></disk>",
    "cdrom on USB": "<disk type='file' device='cdrom'><target dev='sdd' bus='usb'/><readonly/></disk>",
    "disk": "<disk type='file'><source file='{home}/more.raw'/><target dev='sdc' bus='scsi'/></disk>",
    "lease": "<lease><lockspace>space</lockspace><key>key</key><target path='{home}/leases'/></lease>",
    "unknown": "<frob/>",
}
_CARD: Final = "type='user'><mac address='52:54:00:00:00:01'/>"
_LISTEN: Final = "listen='127.0.0.1'"
_DISK: Final = (
    "<disk type='file' device='disk'><driver name='qemu' type='raw'{words}/><source file='{{home}}/{name}.raw'/>"
    "<target dev='sda' bus='{bus}'/>{more}</disk>"
)
# What is there already, as it is to be.
UPDATES: Final[dict[str, str]] = {
    "link": f"<interface {_CARD}<model type='e1000'/><link state='down'/></interface>",
    "MAC of nobody": f"<interface {_CARD}<model type='e1000'/></interface>".replace("00:01", "00:09"),
    "model of an interface": f"<interface {_CARD}<model type='virtio'/></interface>",
    "boot order of an interface": f"<interface {_CARD}<model type='e1000'/><boot order='1'/></interface>",
    "MTU": f"<interface {_CARD}<model type='e1000'/><mtu size='1400'/></interface>",
    "password": f"<graphics type='vnc' autoport='yes' {_LISTEN} passwd='other'/>",
    "port": f"<graphics type='vnc' port='5999' {_LISTEN} passwd='secret'/>",
    "listen": "<graphics type='vnc' autoport='yes' listen='0.0.0.0' passwd='secret'/>",
    "keymap": f"<graphics type='vnc' autoport='yes' keymap='de' {_LISTEN} passwd='secret'/>",
    "bus of a disk": _DISK.format(words="", name="disk", bus="usb", more=""),
    "source of a disk": _DISK.format(words="", name="more", bus="scsi", more=""),
    "cache of a disk": _DISK.format(words=" cache='none'", name="disk", bus="scsi", more=""),
    "discards of a disk": _DISK.format(words=" discard='unmap'", name="disk", bus="scsi", more=""),
    "serial number of a disk": _DISK.format(words="", name="disk", bus="scsi", more="<serial>S</serial>"),
    "read-only disk": _DISK.format(words="", name="disk", bus="scsi", more="<readonly/>"),
    "transient disk": _DISK.format(words="", name="disk", bus="scsi", more="<transient/>"),
    "sectors of a disk": _DISK.format(words="", name="disk", bus="scsi", more="<blockio logical_block_size='512'/>"),
    "limits of a disk": _DISK.format(
        words="", name="disk", bus="scsi", more="<iotune><total_bytes_sec>1000000</total_bytes_sec></iotune>"
    ),
    "copy on read": _DISK.format(words=" copy_on_read='on'", name="disk", bus="scsi", more=""),
    "same disk": _DISK.format(words="", name="disk", bus="scsi", more=""),
    "startup policy": (
        "<disk type='file' device='cdrom'><source file='{home}/more.raw' startupPolicy='optional'/>"
        "<target dev='hdc' bus='ide'/><readonly/></disk>"
    ),
    "disk of nobody": "<disk type='file'><source file='{home}/more.raw'/><target dev='sdz' bus='scsi'/></disk>",
    "memballoon": "<memballoon model='virtio'><stats period='5'/></memballoon>",
    "input": "<input type='tablet' bus='usb'/>",
    "sound": "<sound model='ac97'/>",
}
# Which is taken out of a running machine at once, where the guest has no word in it.
AT_ONCE: Final = frozenset({
    "serial on USB", "console on virtio", "channel", "channel on a socket", "redirdev", "input on USB", "disk",
    "cdrom on USB", "lease",
})  # fmt: skip


def lines(home: Path, port: int) -> list[str]:
    """Virsh's lines that attach, update and detach all of it; the documents are written below ``home``."""
    for name in ("disk", "more"):
        image = home / f"{name}.raw"
        image.write_bytes(bytes(1 << 20))
        image.chmod(0o666)
    said = [f"define {_written(home, 'domain', DOMAIN, port)}", "start guest --paused"]
    for name, xml in DEVICES.items():
        file = _written(home, name, xml, port)
        for how in ("--config", "--live"):
            is_quick = how == "--config" or name in AT_ONCE
            words = ["attach", "detach", "update", "detach"] if is_quick else ["attach", "update"]
            said += [f"{word}-device guest {file} {how}" for word in words]
    for name, xml in UPDATES.items():
        file = _written(home, f"update {name}", xml, port)
        said += [f"update-device guest {file} {how}" for how in ("--live", "--config")]
    return said


def _written(home: Path, name: str, xml: str, port: int) -> Path:
    path = home / f"{name.replace(' ', '-').replace('/', '')}.xml"
    path.write_text(xml.replace("{home}", str(home)).replace("{port}", str(port)))
    return path
