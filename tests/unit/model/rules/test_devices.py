"""Other devices that the rules refuse."""

from __future__ import annotations

import pytest

from hostel.model.domain.platform import Platform
from support.domain import QEMU
from support.refused import disk, document
from support.rules import (
    ARGUMENT,
    AUTH,
    BARE,
    DRIVE,
    INTERNAL,
    POWER,
    SPICE,
    XML,
    Refused,
    check_not_started,
    check_refused,
    on,
    scsi,
)

ANYBODY = Platform(arch="x86_64")
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
PLACE = "<address type='pci' domain='0' bus='0' slot='9' function='0'/>"


def usb(more: str = "") -> str:
    ids = "<vendor id='0x1234'/><product id='0xbeef'/>"
    return f"<hostdev mode='subsystem' type='usb'><source>{ids}</source>{more}</hostdev>"


def mdev(words: str = "") -> str:
    source = f"<source><address uuid='{UUID}'/></source>"
    return f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'{words}>{source}</hostdev>"


REFUSED: dict[str, Refused] = {
    "port for TLS that the host does not do": Refused(
        "<graphics type='spice' autoport='no' port='5901' tlsPort='5902'/>", "/domain/devices/graphics[1]/@tlsPort",
        "spice TLS port set in XML configuration, but TLS is disabled in qemu.conf",
        platform=QEMU._replace(spice_tls=False), only_given=True,
    ),
    "unknown bus of an input": Refused(
        "<input type='mouse' bus='frob'/>", "/domain/devices/input/@bus",
        "unknown input bus type 'frob'. Write ps2",
    ),
    "unknown hub": Refused(
        "<hub type='frob'/>", "/domain/devices/hub/@type",
        "unknown hub device type 'frob'",
    ),
    "unknown target of a channel": Refused(
        "<channel type='pty'><target type='frob'/></channel>", "/domain/devices/channel/target/@type",
        "unknown target type 'frob' specified for character device. Write guestfwd",
    ),
    "unknown random numbers": Refused(
        "<rng model='virtio'><backend model='frob'/></rng>", "/domain/devices/rng/backend/@model",
        "unknown RNG backend model 'frob'. Write random",
    ),
    "host's input of no device": Refused(
        "<input type='passthrough' bus='virtio'><source dev='/d'/></input>", "/domain/devices/input[1]/source",
        "Missing evdev path for input device", XML, only_given=True,
    ),
    "four certificates": Refused(
        f"<smartcard mode='host-certificates'>{'<certificate>c</certificate>' * 4}</smartcard>",
        "/domain/devices/smartcard[1]/certificate", "host-certificates mode needs exactly three certificates", XML,
        only_given=True,
    ),
    "packed ring of a VGA": Refused(
        document("<video><driver packed='on'/><model type='vga'/></video>"), "/domain/devices/video[1]/driver/@packed",
        "packed driver option is only supported for virtio devices",
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
    "sound that fits no slot": Refused(
        document("<sound model='ich7'/>"), "/domain/devices/sound[1]",
        "Cannot automatically add a new PCI bus for a device with connect flags 00", INTERNAL,
    ),
    "sound over SPICE without it": Refused(
        document("<audio id='1' type='spice'/>"), "/domain/devices/audio[1]/@type",
        "Spice audio is not supported without spice graphics",
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
    "hub without usb": Refused(
        "<controller type='usb' model='none'/><hub type='usb'/>", "/domain/devices/hub[1]",
        "Can't add USB hub: USB is disabled for this domain",
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
    "TPM of another machine": Refused(
        document("<tpm model='tpm-spapr'><backend type='emulator' version='2.0'/></tpm>"),
        "/domain/devices/tpm[1]/@model",
        "The QEMU executable /usr/bin/qemu-system-x86_64 does not support TPM model tpm-spapr",
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
    "slash in shared memory": Refused(
        "<shmem name='a/b'><model type='ivshmem-plain'/></shmem>", "/domain/devices/shmem[1]/@name",
        "shmem name cannot include '/' character",
    ),
    "doorbell without a server": Refused(
        "<shmem name='a'><model type='ivshmem-doorbell'/></shmem>", "/domain/devices/shmem[1]/server",
        "shmem model 'ivshmem-doorbell' is supported only with server option enabled",
    ),
    "parallel port of POWER": Refused(
        on("ppc64", "pseries", "<parallel type='pty'/>"), "/domain/devices/parallel",
        "parallel ports are not supported", platform=POWER,
    ),
}  # fmt: skip

# These are defined, and do not start.
NOT_STARTED: dict[str, Refused] = {
    "little shared memory": Refused(
        "<shmem name='a'><model type='ivshmem-plain'/><size unit='KiB'>512</size></shmem>",
        "/domain/devices/shmem[1]/size", "shmem size must be at least 1 MiB (1024 KiB)", XML,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_document_is_refused_where_it_is_wrong(name: str) -> None:
    check_refused(REFUSED[name])


@pytest.mark.parametrize("name", NOT_STARTED)
def test_document_is_defined_and_does_not_start(name: str) -> None:
    check_not_started(NOT_STARTED[name])
