"""Documents that are refused, each for one thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RECORDED: Final = Path(__file__).parents[1] / "golden" / "refused.txt"
# Ours is refused for another reason, or in other words; how it begins says the kind of error, which is the same.
OTHER_WORDS: Final = {
    "boot order 0", "PCI slot beyond the last", "interface without its network",
    "rng without a back end", "hostdev without a mode's type",
}  # fmt: skip
# The kind is another one too.
OTHER_KIND: Final = {
    "no vcpus", "no target", "unknown address", "bad port", "QEMU argument without a value",
}  # fmt: skip
# libvirt takes these.
TAKEN: Final = {"blank name"}

_DOMAIN: Final = (
    "<domain type='qemu'{root}><name>{name}</name><memory unit='MiB'>64</memory>{head}"
    "<os><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>{body}<devices>{devices}</devices></domain>"
)


def document(
    devices: str = "",
    *,
    name: str = "g",
    head: str = "",
    os: str = "",
    body: str = "",
    machine: str = "pc",
    root: str = "",
) -> str:
    """A domain with something in it."""
    return _DOMAIN.format(devices=devices, name=name, head=head, os=os, body=body, machine=machine, root=root)


def disk(
    dev: str = "vda", bus: str = "virtio", more: str = "", driver: str = "", target: str = "", **attributes: str
) -> str:
    """A disk on a file."""
    words = "".join(f" {key}='{value}'" for key, value in {"type": "file", "device": "disk", **attributes}.items())
    driver = f"<driver name='qemu' type='raw'{driver}/>"
    return f"<disk{words}>{driver}<source file='/d'/><target dev='{dev}' bus='{bus}'{target}/>{more}</disk>"


_ENCRYPTION: Final = (
    "<encryption format='luks'><secret type='passphrase' uuid='c7a5fdbd-edaf-9455-926a-d65c16db1809'/></encryption>"
)
_SHARED: Final = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"


def _lun(more: str) -> str:
    return disk("sda", "scsi", more, type="block", device="lun").replace("file='/d'", "dev='/d'")


def _served(dev: str = "vda", bus: str = "virtio", more: str = "", driver: str = "", snapshot: str = "no") -> str:
    """A disk that another program serves."""
    found = disk(dev, bus, more, driver, type="vhostuser", snapshot=snapshot)
    return found.replace("<source file='/d'/>", "<source type='unix' path='/s'/>")


REFUSED: Final[dict[str, str]] = {
    "no XML": "<domain",
    "another root": "<network/>",
    "no name": document().replace("<name>g</name>", ""),
    "slash in the name": document(name="a/b"),
    "blank name": document(name=" "),
    "unknown type": document().replace("type='qemu'", "type='frob'", 1),
    "no type": document().replace(" type='qemu'", "", 1),
    "no os": document().replace("<os>", "<xos>").replace("</os>", "</xos>"),
    "unknown os": document().replace(">hvm<", ">frob<"),
    "bad uuid": document(head="<uuid>xyz</uuid>"),
    "bad memory": document().replace(">64<", ">lots<"),
    "bad memory unit": document().replace("MiB", "frob"),
    "no memory": document().replace("<memory unit='MiB'>64</memory>", ""),
    "newline in the title": document(head="<title>a\nb</title>"),
    "no vcpus": document(head="<vcpu>0</vcpu>"),
    "vcpus that are no number": document(head="<vcpu>two</vcpu>"),
    "more vcpus than there may be": document(head="<vcpu current='3'>2</vcpu>"),
    "topology": document(head="<vcpu>3</vcpu>", body="<cpu><topology sockets='1' cores='2' threads='1'/></cpu>"),
    "feature twice": document(
        body="<cpu mode='custom'><model>qemu64</model><feature policy='require' name='x'/>"
        "<feature policy='disable' name='x'/></cpu>"
    ),
    "feature without a model": document(body="<cpu><feature policy='require' name='x'/></cpu>"),
    "unknown cpu mode": document(body="<cpu mode='frob'/>"),
    "unknown boot device": document(os="<boot dev='tape'/>"),
    "boot in two ways": document(disk(more="<boot order='1'/>"), os="<boot dev='hd'/>"),
    "boot order twice": document(disk(more="<boot order='1'/>") + disk("vdb", more="<boot order='1'/>")),
    "boot order 0": document(disk(more="<boot order='0'/>")),
    "bios on no serial port": document(os="<bios useserial='yes'/>"),
    "unknown feature state": document(body="<features><pmu state='frob'/></features>"),
    "unknown clock": document(body="<clock offset='frob'/>"),
    "unknown timer": document(body="<clock offset='utc'><timer name='frob'/></clock>"),
    "timer with another's frequency": document(body="<clock offset='utc'><timer name='pit' frequency='1'/></clock>"),
    "unknown action": document(body="<on_reboot>frob</on_reboot>"),
    "unknown disk type": document(disk(type="frob")),
    "unknown disk device": document(disk(device="frob")),
    "unknown bus": document(disk(bus="frob")),
    "no target": document("<disk type='file'><source file='/d'/></disk>"),
    "no name of a disk": document(disk("frob")),
    "target twice": document(disk() + disk()),
    "no source": document("<disk type='file'><target dev='vda' bus='virtio'/></disk>"),
    "floppy on ide": document(disk("fda", "ide", device="floppy")),
    "disk on fdc": document(disk("fda", "fdc")),
    "cdrom on virtio": document(disk(device="cdrom")),
    "drive address twice": document(
        disk("sda", "scsi", "<address type='drive' unit='1'/>")
        + disk("sdb", "scsi", "<address type='drive' unit='1'/>")
    ),
    "drive at a PCI address": document(disk("sda", "scsi", "<address type='pci' slot='5'/>")),
    "PCI address twice": document(
        disk(more="<address type='pci' slot='5'/>") + disk("vdb", more="<address type='pci' slot='5'/>")
    ),
    "PCI slot beyond the last": document(disk(more="<address type='pci' slot='40'/>")),
    "unknown address": document(disk(more="<address type='frob'/>")),
    "long vendor": document(disk("sda", "scsi", "<vendor>123456789</vendor>")),
    "vendor on virtio": document(disk(more="<vendor>1234</vendor>")),
    "bad wwn": document(disk("sda", "scsi", "<wwn>frob</wwn>")),
    "wwn on virtio": document(disk(more="<wwn>0123456789abcdef</wwn>")),
    "unknown format": document(disk().replace("'raw'", "'frob'")),
    "unknown driver": document(disk().replace("'qemu'", "'frob'", 1)),
    "unknown cache": document(disk(driver=" cache='frob'")),
    "native io with a cache": document(disk(driver=" io='native' cache='writeback'")),
    "copy on read of what is read-only": document(disk(driver=" copy_on_read='on'", more="<readonly/>")),
    "copy on read of a floppy": document(disk("fda", "fdc", driver=" copy_on_read='on'", device="floppy")),
    "transient floppy": document(disk("fda", "fdc", "<transient/>", device="floppy")),
    "transient and read-only": document(disk(more="<transient/><readonly/>")),
    "transient device": document(disk(more="<transient/>", type="block").replace("file='/d'", "dev='/d'")),
    "transient ide that shares": document(disk("hda", "ide", "<transient shareBacking='yes'/>")),
    "slice of a lun": document(
        disk("sda", "scsi", type="block", device="lun").replace(
            "<source file='/d'/>",
            "<source dev='/d'><slices><slice type='storage' offset='0' size='1'/></slices></source>",
        )
    ),
    "encrypted lun": document(
        disk("sda", "scsi", type="block", device="lun").replace(
            "<source file='/d'/>", f"<source dev='/d'>{_ENCRYPTION}</source>"
        )
    ),
    "tray of a disk": document(disk(target=" tray='open'")),
    "startup policy of what is on a server": document(
        disk(type="network").replace(
            "<source file='/d'/>", "<source protocol='nbd' startupPolicy='optional'><host name='h'/></source>"
        )
    ),
    "wwn of a lun": document(_lun("<wwn>0123456789abcdef</wwn>")),
    "vendor of a lun": document(_lun("<vendor>V</vendor>")),
    "serial number of a lun": document(_lun("<serial>S</serial>")),
    "rotating virtio disk": document(disk(target=" rotation_rate='7200'")),
    "rotating cdrom": document(disk("sda", "scsi", target=" rotation_rate='7200'", device="cdrom")),
    "group without limits": document(disk(more="<iotune><group_name>g</group_name></iotune>")),
    "group of different limits": document(
        disk(more="<iotune><total_bytes_sec>1</total_bytes_sec><group_name>g</group_name></iotune>")
        + disk("vdb", more="<iotune><total_bytes_sec>2</total_bytes_sec><group_name>g</group_name></iotune>")
    ),
    "limit beyond QEMU's": document(disk(more="<iotune><read_iops_sec>1000000000000001</read_iops_sec></iotune>")),
    **{
        f"{name} of a served disk": document(_served(**words)).replace("<devices>", f"{_SHARED}<devices>")
        for name, words in {
            "bus": {"bus": "scsi", "dev": "sda"},
            "snapshot": {"snapshot": "external"},
            "cache": {"driver": " cache='none'"},
            "error policy": {"driver": " error_policy='stop'"},
            "discard": {"driver": " discard='unmap'"},
            "serial number": {"more": "<serial>S</serial>"},
            "read-only": {"more": "<readonly/>"},
            "transient": {"more": "<transient/>"},
            "iotune": {"more": "<iotune><read_iops_sec>1</read_iops_sec></iotune>"},
            "blockio": {"more": "<blockio logical_block_size='512'/>"},
        }.items()
    },
    "read-only ide": document(disk("hda", "ide", "<readonly/>")),
    "read-only sata": document(disk("sda", "sata", "<readonly/>"), machine="q35"),
    "removable virtio": document(disk(target=" removable='on'")),
    "queues on ide": document(disk("hda", "ide", driver=" queues='2'")),
    "requisite disk": document(disk().replace("file='/d'", "file='/d' startupPolicy='requisite'")),
    "ide on q35": document(disk("hda", "ide"), machine="q35"),
    "third ide bus": document(disk("hde", "ide")),
    "lun on a file": document(disk("sda", "scsi", device="lun")),
    "iothread that is not there": document(disk(driver=" iothread='1'")),
    "controller twice": document("<controller type='scsi' index='0'/><controller type='scsi' index='0'/>"),
    "unknown controller": document("<controller type='frob'/>"),
    "unknown scsi controller": document("<controller type='scsi' model='frob'/>"),
    "unknown usb controller": document("<controller type='usb' model='frob'/>"),
    "PCI controller without a model": document("<controller type='pci' index='1'/>"),
    "PCIe root on a PC": document("<controller type='pci' index='0' model='pcie-root'/>"),
    "PCI root with another index": document("<controller type='pci' index='1' model='pci-root'/>"),
    "too many xhci ports": document("<controller type='usb' model='qemu-xhci' ports='16'/>"),
    "usb companion alone": document("<controller type='usb' model='ich9-uhci1'/>"),
    "usb beside none": document(
        "<controller type='usb' model='none'/><controller type='usb' model='qemu-xhci' index='1'/>"
    ),
    "usb device without usb": document("<controller type='usb' model='none'/><input type='tablet' bus='usb'/>"),
    "unknown interface": document("<interface type='frob'/>"),
    "interface without its network": document("<interface type='network'/>"),
    "interface without its bridge": document("<interface type='bridge'><source/></interface>"),
    "bad MAC": document("<interface type='user'><mac address='frob'/></interface>"),
    "multicast MAC": document("<interface type='user'><mac address='01:00:00:00:00:01'/></interface>"),
    "bad link": document("<interface type='user'><link state='frob'/></interface>"),
    "unknown serial type": document("<serial type='frob'/>"),
    "file without a path": document("<serial type='file'/>"),
    "tcp without a port": document("<serial type='tcp'><source mode='connect' host='h'/></serial>"),
    "second serial console": document(
        "<serial type='pty'/><console type='pty'/><console type='pty'><target type='serial'/></console>"
    ),
    "channel without a target": document("<channel type='unix'/>"),
    "unknown graphics": document("<graphics type='frob'/>"),
    "bad port": document("<graphics type='vnc' port='frob'/>"),
    "listens that disagree": document(
        "<graphics type='vnc' listen='127.0.0.1'><listen type='address' address='127.0.0.2'/></graphics>"
    ),
    "unknown video": document("<video><model type='frob'/></video>"),
    "two primary screens": document(
        "<video><model type='vga' primary='yes'/></video><video><model type='vga' primary='yes'/></video>"
    ),
    "tablet on ps2": document("<input type='tablet' bus='ps2'/>"),
    "unknown input": document("<input type='frob'/>"),
    "unknown sound": document("<sound model='frob'/>"),
    "sound on audio that is not there": document("<sound model='ac97'><audio id='7'/></sound>"),
    "audio twice": document("<audio id='1' type='none'/><audio id='1' type='none'/>"),
    "unknown watchdog": document("<watchdog model='frob'/>"),
    "unknown watchdog action": document("<watchdog model='i6300esb' action='frob'/>"),
    "unknown balloon": document("<memballoon model='frob'/>"),
    "two balloons": document("<memballoon model='virtio'/><memballoon model='virtio'/>"),
    "rng without a back end": document("<rng model='virtio'/>"),
    "alias twice": document(disk(more="<alias name='ua-x'/>") + disk("vdb", more="<alias name='ua-x'/>")),
    "hostdev without a mode's type": document("<hostdev mode='subsystem'/>"),
    "QEMU argument without a value": document(body="").replace(
        "<devices>",
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg/></qemu:commandline><devices>",
    ),
    "memory by SEV where there is none": document(
        body="<launchSecurity type='sev'><policy>1</policy></launchSecurity>"
    ),
    "memory by SEV without a policy": document(body="<launchSecurity type='sev'/>"),
    "memory kept from the host on another board": document(body="<launchSecurity type='s390-pv'/>"),
}


def recorded() -> dict[str, str]:
    """Why libvirt refuses them."""
    lines = RECORDED.read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def agrees(name: str, ours: str, theirs: str) -> bool:
    """Whether what we say is what libvirt says, as far as it is to be; we may say more."""
    if name in TAKEN:
        return not theirs
    if name in OTHER_KIND:
        return bool(theirs) and ours.partition(": ")[0] != theirs.partition(": ")[0]
    if name in OTHER_WORDS:
        return ours.partition(": ")[0] == theirs.partition(": ")[0] and not ours.startswith(theirs)
    return bool(theirs) and ours.startswith(theirs)
