"""Disks, file systems and their controllers that the rules refuse."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode
from support.refused import disk, document
from support.rules import (
    ARGUMENT,
    AUTH,
    BARE,
    DRIVE,
    INTERNAL,
    POWER,
    XML,
    Refused,
    check_not_started,
    check_refused,
    on,
    scsi,
)

LUKS = "<encryption format='luks'><secret type='passphrase' usage='s'/></encryption>"


def net(source: str, more: str = "") -> str:
    driver = "<driver name='qemu' type='raw'/>"
    target = "<target dev='vda' bus='virtio'/>"
    return f"<disk type='network' device='disk'>{driver}<source {source}</source>{target}{more}</disk>"


def pci(model: str, index: int = 1, more: str = "") -> str:
    return f"<controller type='pci' index='{index}' model='{model}'>{more}</controller>"


def lun(more: str) -> str:
    unit = disk("sda", "scsi", type="block", device="lun")
    return document(unit.replace("<source file='/d'/>", f"<source dev='/d'>{more}</source>"))


REFUSED: dict[str, Refused] = {
    "CD-ROM without a name of a disk": Refused(
        document(disk("cdrom1", "sata", DRIVE, device="cdrom")), "/domain/devices/disk[1]/target/@dev",
        "invalid disk target 'cdrom1'", only_given=True,
    ),
    "second bus of a SCSI controller": Refused(
        document(disk("sda", "scsi", "<address type='drive' bus='1'/>")), "/domain/devices/disk[1]/address/@bus",
        "SCSI controller only supports 1 bus", INTERNAL, only_given=True,
    ),
    "target of an IDE disk": Refused(
        document(disk("hda", "ide", "<address type='drive' target='1'/>")),
        "/domain/devices/disk[1]/address/@target", "target must be 0 for ide controller",
    ),
    "target of a floppy": Refused(
        document(disk("fda", "fdc", "<address type='drive' target='1'/>", device="floppy")),
        "/domain/devices/disk[1]/address/@target", "target must be 0 for controller fdc",
    ),
    "model of a controller that has none": Refused(
        "<controller type='fdc' index='0' model='pci-root'/>", "/domain/devices/controller[1]/@model",
        "Unknown model type 'pci-root'", only_given=True,
    ),
    "source without a name": Refused(
        net("protocol='rbd'><host name='h'/>"), "/domain/devices/disk[1]/source/@name",
        "missing name for disk source", XML,
    ),
    "pool without an image": Refused(
        net("protocol='gluster' name='a'><host name='h'/>"), "/domain/devices/disk[1]/source/@name",
        "can't split path 'a' into pool name and image name", XML,
    ),
    "cookie that is a header": Refused(
        net("protocol='http' name='a'><host name='h'/><cookies><cookie name='c'>v&#10;X: y</cookie></cookies>"),
        "/domain/devices/disk[1]/source/cookies/cookie[1]", "value of cookie 'c' contains invalid characters", XML,
    ),
    "cookie of a bad name": Refused(
        net("protocol='http' name='a'><host name='h'/><cookies><cookie name='c=d'>v</cookie></cookies>"),
        "/domain/devices/disk[1]/source/cookies/cookie[1]/@name", "cookie name 'c=d' contains invalid characters", XML,
    ),
    "cookie of a half quote": Refused(
        net("protocol='http' name='a'><host name='h'/><cookies><cookie name='c'>\"v</cookie></cookies>"),
        "/domain/devices/disk[1]/source/cookies/cookie[1]", "value of cookie 'c' contains invalid characters", XML,
    ),
    "cookie without a name": Refused(
        net("protocol='http' name='a'><host name='h'/><cookies><cookie name=''>v</cookie></cookies>"),
        "/domain/devices/disk[1]/source/cookies/cookie[1]/@name", "cookie name must not be empty", XML,
    ),
    "reservations of nobody": Refused(
        lun("<reservations/>"), "/domain/devices/disk[1]/source/reservations/@managed",
        "Missing required attribute 'managed' in element 'reservations'", XML,
    ),
    "reservations without a socket": Refused(
        lun("<reservations managed='no'><source type='unix'/></reservations>"),
        "/domain/devices/disk[1]/source/reservations/source/@path", "missing path for <reservations/>", XML,
    ),
    "iommu of an IDE disk": Refused(
        document(disk("hda", "ide", driver=" iommu='on'")), "/domain/devices/disk[1]/driver/@iommu",
        "iommu driver option is only supported for virtio devices",
    ),
    "bus far beyond the last": Refused(
        pci("pci-bridge", 65536), "/domain/devices/controller[1]/@index",
        "PCI controller index 65536 too high, maximum is 255",
    ),
    "first bus that is not": Refused(
        pci("pci-root", 65536), "/domain/devices/controller[1]/@index",
        "pci-root and pcie-root controllers should have index 0", XML,
    ),
    "disk that implies too many controllers": Refused(
        document(disk("sdzzzz", "scsi")), "/domain/devices",
        "controller 67893 of type 'scsi' has too large an index: what hangs on it implies all before it",
    ),
    "address that implies too many controllers": Refused(
        document(disk("sda", "scsi", "<address type='drive' controller='4294967295'/>")), "/domain/devices",
        "controller 4294967295 of type 'scsi' has too large an index: what hangs on it implies all before it",
    ),
    "server without a name": Refused(
        net("protocol='nbd'><host port='1'/>"), "/domain/devices/disk[1]/source/host[1]/@name",
        "missing name for host", XML,
    ),
    "server without a socket": Refused(
        net("protocol='nbd'><host transport='unix'/>"), "/domain/devices/disk[1]/source/host[1]/@socket",
        "missing socket for unix transport", XML,
    ),
    "socket of another transport": Refused(
        net("protocol='nbd'><host socket='/s'/>"), "/domain/devices/disk[1]/source/host[1]/@socket",
        "transport '(null)' does not support socket attribute", XML,
    ),
    "server with a bad port": Refused(
        net("protocol='nbd'><host name='h' port='x!'/>"), "/domain/devices/disk[1]/source/host[1]/@port",
        "failed to parse port number 'x!'", ARGUMENT,
    ),
    "pool without its volume": Refused(
        document("<disk type='volume'><source pool='p'/><target dev='vda'/></disk>"), "/domain/devices/disk[1]/source",
        "'pool' and 'volume' must be specified together for 'pool' type source", XML,
    ),
    "directory of nothing": Refused(
        document("<filesystem type='mount'><target dir='t'/></filesystem>"), "/domain/devices/filesystem[1]/source",
        "missing source information for device t", ErrorCode.NO_SOURCE,
    ),
    "directory for nothing": Refused(
        document("<filesystem type='mount'><source dir='/d'/></filesystem>"),
        "/domain/devices/filesystem[1]/target/@dir",
        "missing target information for device /d", ErrorCode.NO_TARGET,
    ),
    "auth twice": Refused(
        net(f"protocol='rbd' name='a/b'><host name='h'/>{AUTH.format('ceph')}", AUTH.format("ceph")),
        "/domain/devices/disk[1]/source/auth", "an <auth> definition already found for disk source",
    ),
    "auth of nbd": Refused(
        net(f"protocol='nbd'><host name='h'/>{AUTH.format('ceph')}"),
        "/domain/devices/disk[1]/source/auth", "authentication is not supported for protocol 'nbd'",
    ),
    "auth of another": Refused(
        net(f"protocol='rbd' name='a/b'><host name='h'/>{AUTH.format('iscsi')}"),
        "/domain/devices/disk[1]/source/auth/secret/@type", "invalid secret type 'iscsi'",
    ),
    "cipher of luks": Refused(
        disk(more=LUKS.replace("</enc", "<cipher name='aes' size='256'/></enc")),
        "/domain/devices/disk[1]/encryption/cipher", "supplying <cipher> for domain disk definition is unnecessary",
    ),
    "snapshot of a file": Refused(
        disk().replace("<source file='/d'/>", "<source file='/d'><snapshot name='s'/></source>"),
        "/domain/devices/disk[1]/source/snapshot",
        "<snapshot> element is currently supported only with 'rbd' disks", XML,
    ),
    "cookies of ftp": Refused(
        net("protocol='ftp' name='a'><host name='h'/><cookies><cookie name='a'>b</cookie></cookies>"),
        "/domain/devices/disk[1]/source/cookies", "http cookies are supported only with HTTP(S) protocol",
    ),
    "tftp": Refused(
        net("protocol='tftp' name='a'><host name='h'/>"), "/domain/devices/disk[1]/source/@protocol",
        "'tftp' protocol is not supported with this QEMU binary",
    ),
    "port of nfs": Refused(
        net("protocol='nfs' name='/a/b'><host name='h' port='1'/>"), "/domain/devices/disk[1]/source/host/@port",
        "port cannot be specified in 'nfs' protocol host",
    ),
    "iso": Refused(
        disk().replace("'raw'", "'iso'"), "/domain/devices/disk[1]/driver/@type",
        "storage format 'iso' is not directly supported by QEMU, use 'raw' instead",
    ),
    "files written to a directory": Refused(
        "<disk type='dir' device='disk'><driver name='qemu' type='fat'/><source dir='/d'/>"
        "<target dev='vda' bus='virtio'/></disk>",
        "/domain/devices/disk[1]/readonly", "virtual FAT storage can't be accessed in read-write mode",
    ),
    "old encryption": Refused(
        disk(more=LUKS.replace("luks", "qcow")), "/domain/devices/disk[1]/encryption/@format",
        "old qcow/qcow2 encryption is not supported",
    ),
    "encrypted vmdk": Refused(
        disk(more=LUKS).replace("'raw'", "'vmdk'"), "/domain/devices/disk[1]/driver/@type",
        "encryption is supported only with 'raw' and 'qcow2' image format",
    ),
    "metadata of raw": Refused(
        disk().replace(" type='raw'/>", " type='raw'><metadata_cache><max_size>1</max_size></metadata_cache></driver>"),
        "/domain/devices/disk[1]/driver/metadata_cache",
        "metadata cache max size control is supported only with qcow2 images",
    ),
    "vhost-user disk": Refused(
        "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw'/><source type='unix' path='/s'/>"
        "<target dev='vda' bus='virtio'/></disk>",
        "/domain/devices/disk[1]/@type", "'vhostuser' requires shared memory",
    ),
    "no scsi controller": Refused(
        "<controller type='scsi' model='lsilogic'/>", "/domain/devices/controller[1]/@model",
        "This QEMU doesn't support the LSI 53C895A SCSI controller", platform=BARE,
    ),
    "two IDE controllers": Refused(
        "<controller type='ide' index='1'/>", "/domain/devices/controller[1]/@index",
        "Only a single IDE controller is supported for this machine type",
    ),
    "queues of lsilogic": Refused(
        "<controller type='scsi' model='lsilogic'><driver queues='2'/></controller>",
        "/domain/devices/controller[1]/driver/@queues", "'queues' is only supported by virtio-scsi controller",
    ),
    "controller of another hypervisor": Refused(
        "<controller type='usb' model='qusb1'/>", "/domain/devices/controller[1]/@model",
        "USB controller model type 'qusb1' or 'qusb2' is not supported in qemu",
    ),
    "expander at no node": Refused(
        pci("pci-expander-bus", more="<target><node>1</node></target>"),
        "/domain/devices/controller[1]/target/node", "is configured for a NUMA node (1) not present", XML,
    ),
    "port of a bridge": Refused(
        pci("pci-bridge", more="<target port='0x1'/>"), "/domain/devices/controller[1]/target",
        "Option 'port' is not valid for PCI controller with index '1', model 'pci-bridge'",
    ),
    "pcihole of another machine": Refused(
        document(pci("pcie-root", 0, "<pcihole64 unit='KiB'>1</pcihole64>"), machine="isapc"),
        "/domain/devices/controller[1]/pcihole64",
        "Setting the 64-bit PCI hole size is not supported for machine 'isapc'",
    ),
    "thread of a controller": Refused(
        "<controller type='scsi' model='virtio-scsi'><driver iothread='2'/></controller>",
        "/domain/devices/controller[1]/driver/@iothread", "controller iothread '2' not defined in iothreadid",
    ),
    "disk that would be at a device's place": Refused(
        disk("sdd", "scsi") + scsi(1, DRIVE), "/domain/devices/disk[1]/target/@dev",
        "using disk target name 'sdd' conflicts with SCSI host device address",
    ),
    "partition": Refused(
        disk("vdb1"), "/domain/devices/disk[1]/target/@dev", "partitions can't appear in disk targets",
    ),
    "controller twice": Refused(
        "<controller type='scsi' index='0'/>" * 2, "/domain/devices/controller[2]/@index",
        "Multiple 'scsi' controllers with index '0'", XML,
    ),
}  # fmt: skip

# These are defined, and do not start.
NOT_STARTED: dict[str, Refused] = {
    "floppy of POWER": Refused(
        on("ppc64", "pseries", disk("fda", "fdc", device="floppy")), "/domain/devices/disk[1]/target/@bus",
        "PowerPC pseries machines do not support floppy device", platform=POWER,
    ),
    "usb of another QEMU": Refused(
        "<controller type='usb' model='nec-xhci'/>", "/domain/devices/controller[1]/@model",
        "USB controller model 'nec-xhci' not supported in this QEMU binary", platform=BARE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_document_is_refused_where_it_is_wrong(name: str) -> None:
    check_refused(REFUSED[name])


@pytest.mark.parametrize("name", NOT_STARTED)
def test_document_is_defined_and_does_not_start(name: str) -> None:
    check_not_started(NOT_STARTED[name])
