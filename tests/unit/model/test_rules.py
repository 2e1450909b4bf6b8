"""What the rules refuse: libvirt's code, its words, and where in the document it is."""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.defaults import complete
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform
from hostel.model.domain.rules.start import check_start
from hostel.model.domain.validate import validate
from support.domain import QEMU
from support.refused import disk, document

CONFIG: Final = ErrorCode.CONFIG_UNSUPPORTED
XML: Final = ErrorCode.XML_ERROR
DETAIL: Final = ErrorCode.XML_DETAIL
INTERNAL: Final = ErrorCode.INTERNAL_ERROR
ARGUMENT: Final = ErrorCode.INVALID_ARG

POWER = Platform(
    is_qemu=True, arch="ppc64", machine="pseries", features=frozenset({"spapr-pci-host-bridge", "pc-dimm"})
)
ARM = Platform(is_qemu=True, arch="aarch64", machine="virt", features=frozenset({"gpex-pcihost", "virtio-mmio"}))
ANYBODY = Platform(arch="x86_64")
BARE = Platform(is_qemu=True, arch="x86_64", machine="pc")
CELL = "<cpu><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>"
ROOM = "<maxMemory slots='1' unit='GiB'>1</maxMemory>"
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
SPICE = "<graphics type='spice'/>"


class Refused(NamedTuple):
    """What a document is refused with."""

    xml: str
    path: str
    words: str
    code: ErrorCode = CONFIG
    platform: Platform = QEMU


def dimm(more: str = "", *, size: int = 128, model: str = "dimm") -> str:
    return f"<memory model='{model}'><target><size unit='MiB'>{size}</size>{more}</target></memory>"


def roomy(devices: str) -> str:
    return document(devices, head=ROOM, body=CELL)


def on(arch: str, machine: str, devices: str = "", **parts: str) -> str:
    return document(devices, machine=machine, **parts).replace("arch='x86_64'", f"arch='{arch}'")


def net(source: str, more: str = "") -> str:
    driver = "<driver name='qemu' type='raw'/>"
    target = "<target dev='vda' bus='virtio'/>"
    return f"<disk type='network' device='disk'>{driver}<source {source}</source>{target}{more}</disk>"


def pci(model: str, index: int = 1, more: str = "") -> str:
    return f"<controller type='pci' index='{index}' model='{model}'>{more}</controller>"


def card(kind: str, more: str = "") -> str:
    source = "<source bridge='b'/>" if kind == "bridge" else ""
    return f"<interface type='{kind}'>{source}{more}</interface>"


def usb(more: str = "") -> str:
    ids = "<vendor id='0x1234'/><product id='0xbeef'/>"
    return f"<hostdev mode='subsystem' type='usb'><source>{ids}</source>{more}</hostdev>"


def mdev(words: str = "") -> str:
    source = f"<source><address uuid='{UUID}'/></source>"
    return f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'{words}>{source}</hostdev>"


def scsi(unit: int, more: str = "", words: str = "") -> str:
    source = f"<source><adapter name='scsi_host0'/><address bus='0' target='0' unit='{unit}'/></source>"
    return f"<hostdev mode='subsystem' type='scsi'{words}>{source}{more}</hostdev>"


CACHE = (
    "<cache level='{}' associativity='none' policy='none'>"
    "<size value='1' unit='KiB'/><line value='8' unit='B'/></cache>"
)


def linked(words: str) -> str:
    links = f"<interconnects><latency {words} type='read' value='5'/></interconnects>"
    return document(body=CELL.replace("</numa>", f"{links}</numa>"))


def lun(more: str) -> str:
    unit = disk("sda", "scsi", type="block", device="lun")
    return document(unit.replace("<source file='/d'/>", f"<source dev='/d'>{more}</source>"))


DRIVE = "<address type='drive' controller='0' bus='0' target='0' unit='3'/>"
PLACE = "<address type='pci' domain='0' bus='0' slot='9' function='0'/>"
AUTH = "<auth username='u'><secret type='{}' usage='s'/></auth>"
LUKS = "<encryption format='luks'><secret type='passphrase' usage='s'/></encryption>"
PAGES = "<memoryBacking><hugepages><page size='2' unit='MiB'{}/>{}</hugepages></memoryBacking>"

# One a family at least; the 201 documents that libvirt refuses are tools/libvirt_data's.
REFUSED: dict[str, Refused] = {
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
    "packed ring of a VGA": Refused(
        document("<video><driver packed='on'/><model type='vga'/></video>"), "/domain/devices/video[1]/driver/@packed",
        "packed driver option is only supported for virtio devices",
    ),
    "pages of an e1000": Refused(
        document("<interface type='user'><model type='e1000'/><driver page_per_vq='on'/></interface>"),
        "/domain/devices/interface[1]/driver/@page_per_vq", "page_per_vq option is only supported for virtio devices",
    ),
    "host's route of no network": Refused(
        document(
            "<interface type='ethernet'><source><route address='6.1.1.1' gateway='6.1.1.2'/></source></interface>"
        ),
        "/domain/devices/interface/source/route/@address",
        "interface host IP: Address '6.1.1.1' in route definition is not a network address", XML,
    ),
    "address that is none": Refused(
        document("<interface type='user'><ip address='10.1.1.999'/></interface>"),
        "/domain/devices/interface/ip/@address", "Invalid address '10.1.1.999' in <ip>", XML,
    ),
    "address of the other family": Refused(
        document("<interface type='user'><ip family='ipv6' address='10.1.1.9'/></interface>"),
        "/domain/devices/interface/ip/@address", "Invalid address '10.1.1.9' in <ip>", XML,
    ),
    "prefix beyond an address": Refused(
        document("<interface type='user'><ip address='10.1.1.9' prefix='33'/></interface>"),
        "/domain/devices/interface/ip/@prefix", "Invalid prefix value '33' in <ip>", XML,
    ),
    "peer of the other family": Refused(
        document("<interface type='user'><ip address='10.1.1.9' peer='::1'/></interface>"),
        "/domain/devices/interface/ip/@peer", "Invalid peer '::1' in <ip>", ARGUMENT,
    ),
    "rate of nothing": Refused(
        document("<interface type='user'><bandwidth><inbound/></bandwidth></interface>"),
        "/domain/devices/interface[1]/bandwidth/inbound", "Missing mandatory average or floor attributes", DETAIL,
    ),
    "interface that is unassigned": Refused(
        document("<interface type='user'><address type='unassigned'/></interface>"),
        "/domain/devices/interface[1]/address/@type", "address of type 'unassigned' is supported only for hostdevs",
    ),
    "host's card elsewhere": Refused(
        document(
            "<interface type='hostdev'><source><address type='pci' bus='1'/></source><address type='isa'/></interface>"
        ),
        "/domain/devices/interface[1]/address/@type", "PCI host devices must use 'pci' or 'unassigned' address type",
        INTERNAL,
    ),
    "input at no port": Refused(
        document("<input type='tablet' bus='usb'><address type='isa'/></input>"),
        "/domain/devices/input[1]/address/@type", "Invalid address for a USB device", XML,
    ),
    "smartcard elsewhere": Refused(
        document("<smartcard mode='host'><address type='isa'/></smartcard>"),
        "/domain/devices/smartcard[1]/address/@type", "Controllers must use the 'ccid' address type",
    ),
    "redirection without USB": Refused(
        document("<controller type='usb' model='none'/><redirdev bus='usb' type='pty'/>"),
        "/domain/devices/redirdev[1]", "cannot add redirected USB device: USB is disabled for this domain",
        platform=ANYBODY,
    ),
    "interrupts of memory without a server": Refused(
        document("<shmem name='s'><msi/></shmem>"), "/domain/devices/shmem[1]/msi",
        "msi option is only supported with a server", XML,
    ),
    "spicevmc of a serial port": Refused(
        document(f"{SPICE}<serial type='spicevmc'/>"), "/domain/devices/serial[1]/@type",
        "spicevmc device type only supports virtio",
    ),
    "D-Bus without a channel": Refused(
        document("<serial type='dbus'/>"), "/domain/devices/serial[1]/source",
        "Missing source channel attribute for char device",
    ),
    "random numbers of no port": Refused(
        document("<rng model='virtio'><backend model='egd' type='udp'/></rng>"),
        "/domain/devices/rng[1]/backend/source", "Missing source service attribute for char device", INTERNAL,
    ),
    "sound settings that are not fixed": Refused(
        document("<audio id='1' type='none'><input><settings frequency='8000'/></input></audio>"),
        "/domain/devices/audio[1]/input/settings", "audio settings specified without fixed settings flag",
    ),
    "fixed sound without a mixer": Refused(
        document("<audio id='1' type='none'><output fixedSettings='yes'/></audio>"),
        "/domain/devices/audio[1]/output/@fixedSettings", "fixed audio settings requires mixing engine",
    ),
    "iSCSI unit with Ceph's secret": Refused(
        document(
            "<hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='a/0'><host name='h'/>"
            f"{AUTH.format('ceph')}</source></hostdev>"
        ),
        "/domain/devices/hostdev[1]/source/auth/secret/@type", "hostdev invalid secret type 'ceph'", INTERNAL,
    ),
    "slot of memory that is not said": Refused(
        roomy(dimm().replace("</memory>", "<address type='dimm'/></memory>")),
        "/domain/devices/memory/address", "Missing required attribute 'slot' in element 'address'", XML,
    ),
    "disk that implies too many controllers": Refused(
        document(disk("sdzzzz", "scsi")), "/domain/devices",
        "controller 67893 of type 'scsi' has too large an index: what hangs on it implies all before it",
    ),
    "address that implies too many controllers": Refused(
        document(disk("sda", "scsi", "<address type='drive' controller='4294967295'/>")), "/domain/devices",
        "controller 4294967295 of type 'scsi' has too large an index: what hangs on it implies all before it",
    ),
    "processors that are none": Refused(
        document(body="<cputune><emulatorpin cpuset='^3'/></cputune>"), "/domain/cputune/emulatorpin/@cpuset",
        "Invalid value for attribute 'cpuset' in element 'emulatorpin': '^3'. Write at least one number", XML,
    ),
    "processor that is not there": Refused(
        document(head="<vcpus><vcpu id='9' enabled='yes'/></vcpus>"), "/domain/vcpus/vcpu[1]/@id",
        "vcpu id '9' is out of range of maximum vcpu count", XML,
    ),
    "migratable without the host's": Refused(
        document(body="<cpu mode='custom' migratable='on'><model>qemu64</model></cpu>"), "/domain/cpu/@migratable",
        "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode",
    ),
    "cache of a high level": Refused(
        document(body=CELL.replace("/></numa>", f">{CACHE.format(4)}</cell></numa>")),
        "/domain/cpu/numa/cell[1]/cache[1]/@level", "Ain't nobody heard of that much cache level", XML,
    ),
    "cache twice": Refused(
        document(body=CELL.replace("/></numa>", f">{CACHE.format(1) * 2}</cell></numa>")),
        "/domain/cpu/numa/cell[1]/cache[2]/@level", "Cache level '1' already defined", XML,
    ),
    "link to no node": Refused(
        linked("initiator='0' target='3'"), "/domain/cpu/numa/interconnects/latency/@target",
        "'target' refers to a non-existent NUMA node", XML,
    ),
    "link to no cache": Refused(
        linked("initiator='0' target='0' cache='2'"), "/domain/cpu/numa/interconnects/latency/@cache",
        "'cache' refers to a non-existent NUMA node cache", XML,
    ),
    "spinlocks of no number": Refused(
        document(body="<features><hyperv><spinlocks state='on'/></hyperv></features>"),
        "/domain/features/hyperv/spinlocks/@retries",
        "Missing required attribute 'retries' in element 'spinlocks'", XML,
    ),
    "vendor of no name": Refused(
        document(body="<features><hyperv><vendor_id state='on'/></hyperv></features>"),
        "/domain/features/hyperv/vendor_id/@value", "missing 'value' attribute for HyperV feature 'vendor_id'", XML,
    ),
    "ring of no size": Refused(
        document(body="<features><kvm><dirty-ring state='on'/></kvm></features>"),
        "/domain/features/kvm/dirty-ring/@size", "Missing required attribute 'size' in element 'dirty-ring'", XML,
    ),
    "timezone that is not said": Refused(
        document(body="<clock offset='timezone'/>"), "/domain/clock/@timezone",
        "missing 'timezone' attribute for clock with offset='timezone'", INTERNAL,
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
    "channel by half": Refused(
        document("<input type='tablet' bus='virtio'><address type='ccw' cssid='0xfe' devno='1'/></input>"),
        "/domain/devices/input[1]/address", "Invalid partial specification for virtio ccw address", INTERNAL,
    ),
    "mediated device of no model": Refused(
        document(f"<hostdev mode='subsystem' type='mdev'><source><address uuid='{UUID}'/></source></hostdev>"),
        "/domain/devices/hostdev[1]/@model", "Missing required attribute 'model' in element 'hostdev'", XML,
    ),
    "vhost adapter of a bad name": Refused(
        document("<hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='x'/></hostdev>"),
        "/domain/devices/hostdev[1]/source/@wwpn", "malformed 'wwpn' value", XML,
    ),
    "iSCSI unit without a name": Refused(
        document(
            "<hostdev mode='subsystem' type='scsi'><source protocol='iscsi'><host name='h'/></source></hostdev>"
        ),
        "/domain/devices/hostdev[1]/source/@name", "missing iSCSI hostdev source path name", XML,
    ),
    "smartcard at the end of nothing": Refused(
        document("<smartcard mode='passthrough'/>"), "/domain/devices/smartcard[1]/@type",
        "passthrough mode requires a character device type attribute", XML,
    ),
    "daemon for random numbers that is none": Refused(
        document("<rng model='virtio'><backend model='egd'/></rng>"), "/domain/devices/rng[1]/backend/@type",
        "missing EGD backend type", XML,
    ),
    "ring of an odd size": Refused(
        document(body="<features><kvm><dirty-ring state='on' size='3000'/></kvm></features>"),
        "/domain/features/kvm/dirty-ring/@size", "dirty ring must be power of 2 and ranges [1024, 65536]", XML,
    ),
    "time that is not said": Refused(
        document(body="<clock offset='absolute'/>"), "/domain/clock/@start",
        "missing 'start' attribute for clock with offset='absolute'", INTERNAL,
    ),
    "real time without a priority": Refused(
        document(body="<cputune><emulatorsched scheduler='fifo'/></cputune>"),
        "/domain/cputune/emulatorsched/@priority",
        "Missing required attribute 'priority' in element 'emulatorsched'", XML,
    ),
    "vendor of a bad length": Refused(
        document(body="<cpu mode='custom'><model vendor_id='short'>qemu64</model></cpu>"),
        "/domain/cpu/model/@vendor_id", "vendor_id must be exactly 12 characters long", XML,
    ),
    "vendor without a model": Refused(
        document(body="<cpu mode='host-model'><vendor>Intel</vendor></cpu>"), "/domain/cpu/vendor",
        "CPU vendor specified without CPU model", XML,
    ),
    "pool of more threads than its most": Refused(
        document(body="<defaultiothread thread_pool_min='8' thread_pool_max='4'/>"),
        "/domain/defaultiothread/@thread_pool_min",
        "thread_pool_min must be smaller or equal to thread_pool_max",
    ),
    "pool of no thread": Refused(
        document(body="<iothreadids><iothread id='1' thread_pool_max='0'/></iothreadids>"),
        "/domain/iothreadids/iothread[1]/@thread_pool_max", "thread_pool_max must be a positive integer",
    ),
    "container without its root": Refused(
        document(
            body="<idmap><uid start='1' target='1000' count='1'/><gid start='0' target='1000' count='1'/></idmap>"
        ),
        "/domain/idmap", "You must map the root user of container",
    ),
    "RDP": Refused(
        document("<graphics type='rdp'/>"), "/domain/devices/graphics[1]/@type",
        "rdp graphics are not supported with this QEMU",
    ),
    "console of containers": Refused(
        document("<console type='pty'><target type='lxc'/></console>"), "/domain/devices/console[1]/target/@type",
        "unsupported console target type lxc",
    ),
    "console of mainframes": Refused(
        document("<console type='pty'><target type='sclplm'/></console>"), "/domain/devices/console[1]/target/@type",
        "sclplmconsole is not supported in this QEMU binary",
    ),
    "sound that QEMU has not": Refused(
        document("<sound model='ich7'><address type='pci' slot='9'/></sound>"), "/domain/devices/sound[1]/@model",
        "sound card model 'ich7' is not supported by qemu",
    ),
    "sound over SPICE without it": Refused(
        document("<audio id='1' type='spice'/>"), "/domain/devices/audio[1]/@type",
        "Spice audio is not supported without spice graphics",
    ),
    "place of SGX memory": Refused(
        roomy(dimm(model="sgx-epc").replace("</memory>", "<address type='dimm' slot='0'/></memory>")),
        "/domain/devices/memory[1]/address", "memory device address is not supported for model 'sgx-epc'",
    ),
    "users without groups": Refused(
        document(body="<idmap><uid start='0' target='1000' count='1'/></idmap>"), "/domain/idmap",
        "uid and gid should be mapped both",
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
    "usb at a PCI address": Refused(
        usb(PLACE), "/domain/devices/hostdev[1]/address/@type", "USB host device must use 'usb' address type",
    ),
    "usb twice": Refused(
        usb() + usb(), "/domain/devices/hostdev[2]", "Hostdev already exists in the domain configuration", XML,
    ),
    "scsi at a disk's place": Refused(
        disk("sda", "scsi", DRIVE) + scsi(1, DRIVE), "/domain/devices/hostdev[1]/address",
        "in use by a SCSI disk: 'sda'",
    ),
    "disk that would be at a device's place": Refused(
        disk("sdd", "scsi") + scsi(1, DRIVE), "/domain/devices/disk[1]/target/@dev",
        "using disk target name 'sdd' conflicts with SCSI host device address",
    ),
    "partition": Refused(
        disk("vdb1"), "/domain/devices/disk[1]/target/@dev", "partitions can't appear in disk targets",
    ),
    "hub without usb": Refused(
        "<controller type='usb' model='none'/><hub type='usb'/>", "/domain/devices/hub[1]",
        "Can't add USB hub: USB is disabled for this domain",
    ),
    "controller twice": Refused(
        "<controller type='scsi' index='0'/>" * 2, "/domain/devices/controller[2]/@index",
        "Multiple 'scsi' controllers with index '0'", XML,
    ),
    "long menu": Refused(
        document(os="<bootmenu enable='yes' timeout='65536'/>"), "/domain/os/bootmenu/@timeout", "The most is 65535",
    ),
    "deep port": Refused(
        "<input type='mouse' bus='usb'><address type='usb' bus='0' port='1.1.1.1.1'/></input>",
        "/domain/devices/input[1]/address/@port", "Cannot parse <address> 'port' attribute", INTERNAL,
    ),
    "scsi at another's place": Refused(
        scsi(1, DRIVE) + scsi(2, DRIVE), "/domain/devices/hostdev[2]/address", "in use by another SCSI host device",
    ),
    "unfiltered": Refused(
        scsi(1, words=" sgio='unfiltered'"), "/domain/devices/hostdev[1]/@sgio",
        "unfiltered sgio is no longer supported",
    ),
    "no vfio": Refused(
        mdev(), "/domain/devices/hostdev[1]/@model",
        "VFIO PCI device assignment is not supported by this version of QEMU", platform=BARE,
    ),
    "screen of an mdev": Refused(
        mdev(" display='on'"), "/domain/devices/hostdev[1]/@display", "graphics device is needed",
    ),
    "ip of a bridge": Refused(
        card("bridge", "<ip address='1.2.3.4'/>"), "/domain/devices/interface[1]/ip",
        "Invalid attempt to set network interface guest-side IP route and/or address info",
    ),
    "vhost-user e1000": Refused(
        "<interface type='vhostuser'><source type='unix' path='/s' mode='client'/><model type='e1000'/></interface>",
        "/domain/devices/interface[1]/model/@type", "Wrong or no <model> 'type' attribute", INTERNAL,
    ),
    "odd queue": Refused(
        card("bridge", "<model type='virtio'/><driver rx_queue_size='300'/>"),
        "/domain/devices/interface[1]/driver/@rx_queue_size", "rx_queue_size has to be a power of two",
    ),
    "mtu of user": Refused(
        card("user", "<mtu size='1500'/>"), "/domain/devices/interface[1]/mtu",
        "setting MTU on interface type user is not supported yet",
    ),
    "multicast": Refused(
        card("user", "<mac address='01:00:00:00:00:01'/>"), "/domain/devices/interface[1]/mac/@address",
        "expected unicast mac address", XML,
    ),
    "virtual port of user": Refused(
        card("user", "<virtualport type='openvswitch'/>"), "/domain/devices/interface[1]/virtualport",
        "<virtualport> element unsupported for <interface type='user'>",
    ),
    "virtual port without a type": Refused(
        card("bridge", "<virtualport/>"), "/domain/devices/interface[1]/virtualport/@type",
        "missing required virtualport type", XML,
    ),
    "virtual port without what it needs": Refused(
        card("bridge", "<virtualport type='802.1Qbg'><parameters managerid='1'/></virtualport>"),
        "/domain/devices/interface[1]/virtualport/parameters/@typeid",
        "missing typeid in <virtualport type='802.1Qbg'>", XML,
    ),
    "two native vlans": Refused(
        card("bridge", "<vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/></vlan>"),
        "/domain/devices/interface[1]/vlan", "duplicate native vlan setting", XML,
    ),
    "floor of a bridge": Refused(
        card("bridge", "<bandwidth><inbound average='5' floor='2'/></bandwidth>"),
        "/domain/devices/interface[1]/bandwidth/inbound/@floor",
        "floor attribute is not supported for this config",
    ),
    "user kept from others": Refused(
        card("user", "<mac address='52:54:00:00:00:01'/><port isolated='yes'/>"),
        "/domain/devices/interface[1]/port/@isolated",
        "interface 52:54:00:00:00:01 - <port isolated='yes'/> is not supported for network interfaces with type='user'",
    ),
    "passt of a bridge": Refused(
        card("bridge", "<backend type='passt'/>"), "/domain/devices/interface[1]/backend/@type",
        "The 'passt' backend can only be used with interface type='user'",
    ),
    "serial without a path": Refused(
        "<serial type='file'/>", "/domain/devices/serial[1]/source",
        "Missing source path attribute for char device", INTERNAL,
    ),
    "two ends": Refused(
        "<serial type='file'><source path='/a'/><source path='/b'/></serial>", "/domain/devices/serial[1]/source",
        "only one source element is allowed for character device", XML,
    ),
    "reconnect of a server": Refused(
        "<serial type='tcp'><source mode='bind' host='h' service='1'><reconnect enabled='yes' timeout='1'/></source>"
        "</serial>",
        "/domain/devices/serial[1]/source/reconnect", "chardev reconnect is possible only for connect mode", INTERNAL,
    ),
    "reconnect at once": Refused(
        "<serial type='tcp'><source mode='connect' host='h' service='1'><reconnect enabled='yes' timeout='0'/></source>"
        "</serial>",
        "/domain/devices/serial[1]/source/reconnect/@timeout", "chardev reconnect source timeout cannot be '0'",
        ARGUMENT,
    ),
    "spicevmc without spice": Refused(
        "<channel type='spicevmc'><target type='virtio'/></channel>", "/domain/devices/channel[1]/@type",
        "chardev 'spicevmc' not supported without spice graphics",
    ),
    "serial of another place": Refused(
        "<serial type='pty'><target type='pci-serial'/><address type='isa'/></serial>",
        "/domain/devices/serial[1]/address/@type", "Target type 'pci-serial' requires address type 'pci'",
    ),
    "serial of another kind": Refused(
        "<serial type='pty'><target type='isa-serial'><model name='pl011'/></target></serial>",
        "/domain/devices/serial[1]/target/model/@name", "Target model 'pl011' requires target type 'system-serial'",
    ),
    "serial of another machine": Refused(
        "<serial type='pty'><target type='sclp-serial'/></serial>", "/domain/devices/serial[1]/target/@type",
        "not compatible with guest architecture or machine type",
    ),
    "long password": Refused(
        "<graphics type='vnc' passwd='123456789'/>", "/domain/devices/graphics[1]/@passwd",
        "VNC password is 9 characters long, only 8 permitted",
    ),
    "secondary cirrus": Refused(
        "<video><model type='qxl' primary='yes'/></video><video><model type='cirrus'/></video>",
        "/domain/devices/video[2]/model/@primary", "video type 'cirrus' is only valid as primary video device",
    ),
    "none beside another": Refused(
        "<video><model type='none'/></video><video><model type='qxl'/></video>", "/domain/devices/video[1]/model/@type",
        "a 'none' video type must be the only video device defined for the domain",
    ),
    "little video memory": Refused(
        "<video><model type='qxl' vgamem='1000'/></video>", "/domain/devices/video[1]/model/@vgamem",
        "value for 'vgamem' must be at least 1 MiB (1024 KiB)",
    ),
    "heads": Refused(
        "<video><model type='vga' heads='2'/></video>", "/domain/devices/video[1]/model/@heads",
        "video type 'vga' doesn't support multiple 'heads'",
    ),
    "banks of a TPM 1.2": Refused(
        "<tpm model='tpm-tis'><backend type='emulator' version='1.2'><active_pcr_banks><sha256/></active_pcr_banks>"
        "</backend></tpm>",
        "/domain/devices/tpm[1]/backend/active_pcr_banks", "<active_pcr_banks/> requires TPM version '2.0'", XML,
    ),
    "TPM 1.2 by crb": Refused(
        "<tpm model='tpm-crb'><backend type='emulator' version='1.2'/></tpm>", "/domain/devices/tpm[1]/@model",
        "Unsupported interface 'tpm-crb' for TPM 1.2",
    ),
    "IOMMU of another machine": Refused(
        "<iommu model='intel'/>", "/domain/devices/iommu[1]/@model",
        "IOMMU device: 'intel' is only supported with Q35 machines",
    ),
    "IOMMU alone": Refused(
        document("<iommu model='intel'><driver intremap='on'/></iommu>", machine="q35"),
        "/domain/devices/iommu[1]/driver/@intremap", "IOMMU interrupt remapping requires split I/O APIC",
    ),
    "panic of another machine": Refused(
        "<panic model='s390'/>", "/domain/devices/panic[1]/@model",
        "only S390 guests support panic device of model 's390'",
    ),
    "watchdog of another machine": Refused(
        "<watchdog model='diag288'/>", "/domain/devices/watchdog[1]/@model",
        "diag288 model of watchdog is allowed for s390 and s390x only",
    ),
    "no vsock": Refused(
        "<vsock><cid auto='yes'/></vsock>", "/domain/devices/vsock[1]",
        "vsock device is not supported with this QEMU binary", platform=BARE,
    ),
    "module without room": Refused(
        document(dimm("<node>0</node>"), body=CELL), "/domain/devices/memory[1]",
        "cannot use/hotplug a memory device when domain 'maxMemory' is not defined",
    ),
    "module of no cell": Refused(
        roomy(dimm("<node>1</node>")), "/domain/devices/memory[1]/target/node",
        "can't add memory backend for guest node '1' as the guest has only '1' NUMA nodes configured", DETAIL,
    ),
    "more modules than slots": Refused(
        roomy(dimm("<node>0</node>") * 2), "/domain/devices/memory[2]",
        "no free memory device slots available",
    ),
    "modules beyond the room": Refused(
        roomy(dimm("<node>0</node>", size=4096)), "/domain/maxMemory",
        "maximum memory size must be equal or greater than the actual memory size", XML,
    ),
    "room without cells": Refused(
        document(head=ROOM), "/domain/cpu/numa",
        "At least one numa node has to be configured when enabling memory hotplug",
    ),
    "nvdimm without a path": Refused(
        roomy(dimm("<node>0</node>", model="nvdimm")), "/domain/devices/memory[1]/source/path",
        "path is required for model 'nvdimm'", DETAIL,
    ),
    "slash in shared memory": Refused(
        "<shmem name='a/b'><model type='ivshmem-plain'/></shmem>", "/domain/devices/shmem[1]/@name",
        "shmem name cannot include '/' character",
    ),
    "doorbell without a server": Refused(
        "<shmem name='a'><model type='ivshmem-doorbell'/></shmem>", "/domain/devices/shmem[1]/server",
        "shmem model 'ivshmem-doorbell' is supported only with server option enabled",
    ),
    "pages of no cell": Refused(
        document(body=PAGES.format(" nodeset='3'", "") + CELL),
        "/domain/memoryBacking/hugepages/page[1]/@nodeset", "hugepages: node 3 not found", DETAIL,
    ),
    "two sizes": Refused(
        document(body=PAGES.format("", "<page size='1' unit='GiB'/>")), "/domain/memoryBacking/hugepages/page[2]",
        "two master hugepages detected", DETAIL,
    ),
    "pages of anonymous memory": Refused(
        document(body=PAGES.format("", "").replace("</memoryB", "<source type='anonymous'/></memoryB")),
        "/domain/memoryBacking/source", "hugepages are not allowed with anonymous memory source",
    ),
    "memnode without cells": Refused(
        document(body="<numatune><memnode cellid='0' mode='strict' nodeset='0'/></numatune>"),
        "/domain/numatune/memnode[1]", "Element 'memnode' is invalid without any guest NUMA cells", XML,
    ),
    "shares": Refused(
        document(body="<cputune><period>1</period></cputune>"), "/domain/cputune/period",
        "Value of cputune 'period' must be in range [1000, 1000000]",
    ),
    "scheduler of no thread": Refused(
        document(body="<cputune><iothreadsched iothreads='3' scheduler='rr' priority='1'/></cputune>"),
        "/domain/cputune/iothreadsched/@iothreads", "Cannot find 'iothread' : 3",
    ),
    "shares of caches": Refused(
        document(body="<cputune><cachetune vcpus='0'><cache id='0' level='3' type='both' size='3' unit='MiB'/>"
                      "<cache id='0' level='3' type='code' size='3' unit='MiB'/></cachetune></cputune>"),
        "/domain/cputune/cachetune[1]/cache", "Colliding cache allocations", XML,
    ),
    "label twice": Refused(
        document(body="<seclabel type='dynamic' model='dac'/>" * 2), "/domain/seclabel[2]/@model",
        "seclabel for model dac is already provided", DETAIL,
    ),
    "no relabel": Refused(
        document(body="<seclabel type='dynamic' model='dac' relabel='no'/>"), "/domain/seclabel[1]/@relabel",
        "dynamic label type must use resource relabeling",
    ),
    "date": Refused(
        document(body="<sysinfo type='smbios'><bios><entry name='date'>13/13/2020</entry></bios></sysinfo>"),
        "/domain/sysinfo[1]/bios/entry", "Invalid BIOS 'date' format", DETAIL,
    ),
    "reserved file": Refused(
        document(body="<sysinfo type='fwcfg'><entry name='opt/ovmf/a'>b</entry></sysinfo>"),
        "/domain/sysinfo[1]/entry/@name", "That firmware name is reserved",
    ),
    "firmware in two ways": Refused(
        document(os="<loader type='pflash'>/x</loader>").replace("<os>", "<os firmware='efi'>"),
        "/domain/os/loader/@type", "loader attribute 'type' cannot be specified when", DETAIL,
    ),
    "UEFI without ACPI": Refused(
        document(os="<loader readonly='yes' type='pflash'>/x</loader>"), "/domain/os/loader",
        "UEFI requires ACPI on this architecture",
    ),
    "secure PC": Refused(
        document(os="<loader type='pflash' secure='yes'>/x</loader>", body="<features><acpi/></features>"),
        "/domain/os/loader/@secure", "Secure boot is supported with q35 machine types only",
    ),
    "gic": Refused(
        document(body="<features><gic version='2'/></features>"), "/domain/features/gic",
        "The 'gic' feature is not supported for architecture 'x86_64' or machine type 'pc-i440fx-7.2'",
    ),
    "hpt": Refused(
        document(body="<features><hpt resizing='enabled'/></features>"), "/domain/features/hpt",
        "The 'hpt' feature is not supported for architecture 'x86_64'",
    ),
    "htm of another QEMU": Refused(
        on("ppc64", "pseries", body="<features><htm state='on'/></features>"), "/domain/features/htm",
        "HTM configuration is not supported by this QEMU binary", platform=POWER,
    ),
    "pmu of POWER": Refused(
        on("ppc64", "pseries", body="<features><pmu state='off'/></features>"), "/domain/features/pmu",
        "PMU is always enabled for architecture 'ppc64'", platform=POWER,
    ),
    "tseg of a PC": Refused(
        document(body="<features><smm state='on'><tseg unit='MiB'>48</tseg></smm></features>"),
        "/domain/features/smm/tseg", "SMM TSEG is only supported with q35 machine type",
    ),
    "tcg of KVM": Refused(
        document(body="<features><tcg><tb-cache>1024</tb-cache></tcg></features>").replace("'qemu'", "'kvm'", 1),
        "/domain/features/tcg", "TCG features are incompatible with domain type 'kvm'",
    ),
    "cache of ARM": Refused(
        on("aarch64", "virt", body="<cpu mode='custom'><model>cortex-a53</model><cache mode='disable'/></cpu>"),
        "/domain/cpu/cache", "CPU cache specification is not supported for 'aarch64' architecture", platform=ARM,
    ),
    "emulated cache": Refused(
        document(body="<cpu mode='host-model'><cache mode='emulate' level='2'/></cpu>"), "/domain/cpu/cache/@level",
        "CPU cache mode 'emulate' can only be used with level='3'",
    ),
    "threads of POWER": Refused(
        on("ppc64", "pseries", head="<vcpu current='2'>4</vcpu>",
           body="<cpu><topology sockets='1' cores='1' threads='4'/></cpu>"),
        "/domain/cpu/topology/@threads", "vCPUs count must be a multiple of the vCPU hotplug granularity (4)",
        platform=POWER._replace(features=POWER.features | {"query-hotpluggable-cpus"}),
    ),
    "timer of ARM": Refused(
        document(body="<clock offset='utc'><timer name='armvtimer'/></clock>"), "/domain/clock/timer/@name",
        "Configuring the 'armvtimer' timer is not supported for virtType=qemu arch=x86_64",
    ),
    "late clock": Refused(
        document(body="<clock offset='absolute' start='253402300800'/>"), "/domain/clock/@start",
        "The maximum 'start' value for <clock offset='absolute'> is 253402300799",
    ),
    "preserve": Refused(document(body="<on_reboot>preserve</on_reboot>"), "/domain", "doesn't support the 'preserve'"),
    "S3": Refused(
        document(body="<pm><suspend-to-mem enabled='no'/></pm>"), "/domain/pm/suspend-to-mem",
        "setting ACPI S3 not supported", platform=BARE,
    ),
    "cachetune of TCG": Refused(
        document(body="<cputune><cachetune vcpus='0'><cache id='0' level='3' type='both' size='3' unit='MiB'/>"
                      "</cachetune></cputune>"),
        "/domain/cputune", "cachetune is only supported for KVM domains",
    ),
    "type of another emulator": Refused(
        document().replace("'qemu'", "'kvm'", 1), "/domain/@type", "does not support virt type 'kvm'",
        platform=QEMU._replace(types=frozenset({"qemu"})),
    ),
    "parallel port of POWER": Refused(
        on("ppc64", "pseries", "<parallel type='pty'/>"), "/domain/devices/parallel",
        "parallel ports are not supported", platform=POWER,
    ),
}  # fmt: skip

# These are defined, and do not start.
NOT_STARTED: dict[str, Refused] = {
    "host-passthrough": Refused(
        document(body="<cpu mode='host-passthrough'/>"), "/domain/cpu/@mode",
        "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported by hypervisor",
    ),
    "feature of ARM": Refused(
        on("aarch64", "virt", body="<cpu mode='custom'><model>max</model><feature policy='disable' name='vmx'/></cpu>"),
        "/domain/cpu/feature", "unknown CPU feature: vmx", platform=ARM,
    ),
    "iothreads": Refused(
        document(head="<iothreads>1</iothreads>"), "/domain/iothreads", "IOThreads not supported for this QEMU",
        platform=BARE,
    ),
    "floppy of POWER": Refused(
        on("ppc64", "pseries", disk("fda", "fdc", device="floppy")), "/domain/devices/disk[1]/target/@bus",
        "PowerPC pseries machines do not support floppy device", platform=POWER,
    ),
    "usb of another QEMU": Refused(
        "<controller type='usb' model='nec-xhci'/>", "/domain/devices/controller[1]/@model",
        "USB controller model 'nec-xhci' not supported in this QEMU binary", platform=BARE,
    ),
    "queues of user": Refused(
        card("user", "<model type='virtio'/><driver queues='2'/>"), "/domain/devices/interface[1]/driver/@queues",
        "multiqueue is not supported for network interfaces of type user",
    ),
    "little shared memory": Refused(
        "<shmem name='a'><model type='ivshmem-plain'/><size unit='KiB'>512</size></shmem>",
        "/domain/devices/shmem[1]/size", "shmem size must be at least 1 MiB (1024 KiB)", XML,
    ),
    "pages that the host has not": Refused(
        document(body=PAGES.format("", "")), "/domain/memoryBacking/hugepages/page/@size",
        "Unable to find any usable hugetlbfs mount for 2048 KiB", INTERNAL,
        platform=QEMU._replace(page_sizes=frozenset({1048576})),
    ),
    "node that the host has not": Refused(
        document(body="<numatune><memory mode='strict' nodeset='0-1'/></numatune>"), "/domain/numatune/memory/@nodeset",
        "NUMA node 1 is unavailable", platform=QEMU._replace(host_nodes=frozenset({0})),
    ),
    "model that QEMU has not": Refused(
        document(body="<cpu mode='custom'><model fallback='forbid'>Westmere</model></cpu>"), "/domain/cpu/model",
        "CPU model Westmere is not supported by hypervisor", platform=QEMU._replace(models=frozenset({"qemu64"})),
    ),
    "memory beyond numbers": Refused(
        document(body=CELL, head="<maxMemory slots='1' unit='KiB'>9007199254740991</maxMemory>"), "/domain/maxMemory",
        "maximum memory size overflowed after alignment",
    ),
}  # fmt: skip


def read(case: Refused) -> Domain:
    domain = Domain.parse(case.xml if case.xml.startswith("<domain") else document(case.xml))
    forget_run(domain)
    complete(domain, case.platform)
    return domain


@pytest.mark.parametrize("name", REFUSED)
def test_document_is_refused_where_it_is_wrong(name: str) -> None:
    case = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        validate(read(case), case.platform)
    assert (caught.value.code, caught.value.path) == (case.code, case.path), caught.value.reason
    assert case.words in caught.value.reason


@pytest.mark.parametrize("name", NOT_STARTED)
def test_document_is_defined_and_does_not_start(name: str) -> None:
    case = NOT_STARTED[name]
    domain = read(case)
    validate(domain, case.platform)
    with pytest.raises(ModelError) as caught:
        check_start(domain, case.platform)
    assert (caught.value.code, caught.value.path) == (case.code, case.path), caught.value.reason
    assert case.words in caught.value.reason


def test_plain_document_starts() -> None:
    for machine in ("pc", "q35"):
        case = Refused(document(disk() + card("user") + SPICE, machine=machine), "", "")
        domain = read(case)
        validate(domain, QEMU)
        check_start(domain, QEMU)
